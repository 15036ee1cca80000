# SPDX-License-Identifier: Apache-2.0
"""The quickstart: images, a small CLIP trained on them, and MILAN against MAE and random weights.

* ``images.py``: the data folder (``data_folder.py``), from the drawings of ``demo/emoji.zip``
  (``demo_images.py``) or from a user's own images (``own_folder.py``),
* ``scenes.py``: scenes with boxes and masks, made of the same images or a user's own,
* ``stages.py``: what is done with them, and in which order,
* ``report.py``: the page about it.
"""
