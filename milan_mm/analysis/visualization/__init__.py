# SPDX-License-Identifier: Apache-2.0
"""What a trained model does, as images.

* ``views.py``, ``rollout.py``, ``painting.py``: a model on images, from all sides, as tensors,
* ``visualize.py``: those as ``tiles.py``, on a ``sheet.py`` each and on one ``page.py``,
* ``neighbours.py``: the images an encoder takes for the most similar.
"""
