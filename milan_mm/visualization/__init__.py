# SPDX-License-Identifier: Apache-2.0
"""What a run does, as pictures.

* ``panels.py``: tensors to small RGB pictures,
* ``reconstruction.py``: one training step on given pictures, kept for looking at,
* ``neighbours.py``: the pictures an encoder takes for the most similar,
* ``charts.py``: numbers to the geometry of bars and curves,
* ``predictions.py``: classes, boxes, masks and label maps on pictures.
"""
