# SPDX-License-Identifier: Apache-2.0
"""Ablation studies: which part of a method is worth what, on one's own images.

* ``study.py``: what a study file says,
* ``run.py``: its runs, one after the other or side by side, restartable,
* ``differences.py``: in what a cell's config differs from its base's,
* ``images.py``: cells with one run each, compared image by image,
* ``table.py``: means, spreads, and paired differences to the base,
* ``page.py``: the table, the plot and the differences as one page.
"""
