# SPDX-License-Identifier: Apache-2.0
"""Digital corruptions of ImageNet-C. Arguments: see ``noise_and_blur.py``."""
import io

import cv2
import numpy as np
from numpy.random import Generator
from PIL import Image

from .noise_and_blur import blur, displaced


def contrast(x: np.ndarray, severity: int, scale: float, rng: Generator) -> np.ndarray:
    """Everything comes nearer to the image's mean colour."""
    mean = x.mean(axis=(0, 1), keepdims=True)
    return mean + (x - mean) * (.4, .3, .2, .1, .05)[severity]


def elastic_transform(x: np.ndarray, severity: int, scale: float, rng: Generator) -> np.ndarray:
    """Small regions are stretched or contracted.

    All severities do that and the next is stronger; the published images of severities 1 and 2
    are distorted as a whole instead, and 2 is harder than 3.
    """
    spread = (1., 1.3, 1.7, 2., 2.4)[severity]  # standard deviation of the displacement, in pixels
    fields = []
    for _ in range(2):
        field = blur(rng.uniform(-1, 1, x.shape[:2]).astype(np.float32), 2.25 * scale)
        fields.append(field / max(float(field.std()), 1e-6) * spread * scale)
    return displaced(x, fields[0], fields[1], cv2.INTER_LINEAR)


def pixelate(x: np.ndarray, severity: int, scale: float, rng: Generator) -> np.ndarray:
    """Reduced to a share of its side and enlarged again, in blocks."""
    share = (.6, .5, .4, .3, .25)[severity]
    height, width = x.shape[:2]
    small = _to_image(x).resize((max(int(width * share), 1), max(int(height * share), 1)),
                                Image.Resampling.BOX)
    return _to_array(small.resize((width, height), Image.Resampling.NEAREST))


def jpeg_compression(x: np.ndarray, severity: int, scale: float, rng: Generator) -> np.ndarray:
    """Saved as JPEG of low quality."""
    buffer = io.BytesIO()
    _to_image(x).save(buffer, 'JPEG', quality=(25, 18, 15, 10, 7)[severity])
    return _to_array(Image.open(buffer, formats=('JPEG', )).convert('RGB'))


def _to_image(x: np.ndarray) -> Image.Image:
    return Image.fromarray((x.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def _to_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32) / 255
