# SPDX-License-Identifier: Apache-2.0
"""A page one plays with: images, masks, patches and words, answered by a trained model.

* ``seen.py``: what a model says of an image, encoded once,
* ``gallery.py``: a folder's images, and the most similar among them,
* ``explorer.py``: questions about an image that was seen, answered with small images,
* ``server.py``: those as a local web page.
"""
