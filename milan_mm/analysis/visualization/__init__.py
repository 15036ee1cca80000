# SPDX-License-Identifier: Apache-2.0
"""What a run does, as images.

* ``panels.py``: tensors to small RGB images,
* ``reconstruction.py``: one training step on given images, kept for looking at,
* ``trained.py``: from a training's checkpoint to its whole model,
* ``views.py``, ``rollout.py``, ``painting.py``: a model on images, from all sides, as tensors,
* ``visualize.py``: those as ``tiles.py``, on a ``sheet.py`` each and on one ``page.py``,
* ``neighbours.py``: the images an encoder takes for the most similar,
* ``charts.py``: numbers to the geometry of bars and curves,
* ``predictions.py``: classes, boxes, masks and label maps on images,
* ``lettering.py``: text on images.
"""
