# SPDX-License-Identifier: Apache-2.0
"""Advice for one's own images: which of a few choices to train with.

* ``choices.py``: the choices, each a change of the own-data config,
* ``images.py``: which images are trained on, and which measure,
* ``measure.py``: what a trained encoder is worth, image by image,
* ``plan.py``: how many steps fit the hours,
* ``run.py``: the runs, in rungs of which the better half goes on, each done once,
* ``advice.py``: the decision, the table, the config to train with and the page.
"""
