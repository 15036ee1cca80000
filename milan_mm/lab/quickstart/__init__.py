# SPDX-License-Identifier: Apache-2.0
"""The quickstart: images, a small CLIP trained on them, and MILAN against MAE and random weights.

* ``images.py``: the data folder, from the drawings of ``demo/emoji.zip`` (``demo_concepts.py``)
  or from a user's own images (``own_images.py``),
* ``backgrounds.py``: textures, on which cut-outs are pasted,
* ``clip_training.py``: the CLIP, with open_clip's own model, tokenizer and loss.
"""
