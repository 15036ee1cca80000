# SPDX-License-Identifier: Apache-2.0
"""The quickstart: makes pictures, trains a small CLIP on them, and compares MILAN with MAE and random weights.

* ``pictures.py``: the data folder, from the drawings in ``demo/emoji.zip`` or from a user's own pictures,
* ``clip_training.py``: a small CLIP, trained with open_clip's own model, tokenizer and loss.
"""
