# SPDX-License-Identifier: Apache-2.0
"""Weather of ImageNet-C: snow, frost, fog, brightness. Arguments: see ``noise_and_blur.py``."""

from typing import Any

import cv2
import numpy as np
from numpy.random import Generator

from .noise_and_blur import blur, streaked


def snow(x: np.ndarray, severity: int, scale: float, rng: Generator) -> np.ndarray:
    """Flakes that fall, streaked, before an image that has become paler."""
    # Share of the sky that is flakes, their size and fall in pixels, how much of the image stays.
    share, size, fall, keep = ((.035, 3., 8., .8), (.08, 2.5, 8., .7), (.11, 3.5, 10., .7),
                               (.15, 3.5, 10., .65), (.2, 3., 12., .55))[severity]
    height, width = x.shape[:2]
    cells = [max(int(round(side / max(size * scale, 1))), 2) for side in (height, width)]
    field: Any = rng.standard_normal(cells, dtype=np.float32)
    field = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    threshold = np.quantile(field, 1 - share)
    flakes = ((field - threshold) / 0.8).clip(0, 1) ** 0.5
    flakes = streaked(flakes, fall * scale, fall * scale / 2, rng.uniform(45, 135))
    grey = x.mean(axis=2, keepdims=True)
    pale = np.maximum(x, grey * 1.5 + 0.5)
    layer = (flakes * 1.5).clip(0, 1)[..., None]
    return keep * x + (1 - keep) * pale + layer


def frost(x: np.ndarray, severity: int, scale: float, rng: Generator) -> np.ndarray:
    """Ice on a window: needles along the ridges of a noise, thickest at the edges."""
    keep, ice = ((1., .4), (.8, .6), (.7, .7), (.65, .7), (.6, .75))[severity]
    height, width = x.shape[:2]
    needles = np.zeros((height, width), dtype=np.float32)
    for degrees in rng.uniform(0, 180, 3):
        ridge = 1 - np.abs(plasma((height, width), 1.3, rng, 8) * 2 - 1)
        needles = np.maximum(needles, streaked(ridge**16, 16 * scale, 12 * scale, degrees))
    column, row = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    edge = np.maximum(np.abs(column), np.abs(row)) ** 2 * rng.uniform(.5, 1)
    thickness = plasma((height, width), 2., rng) * 0.4 + edge.astype(np.float32) * 0.3
    sheet = (thickness + needles * 1.1).clip(0, 1)[..., None]
    tint = np.array([.85, .95, 1.], dtype=np.float32)
    return keep * x + ice * sheet * tint


def fog(x: np.ndarray, severity: int, scale: float, rng: Generator) -> np.ndarray:
    """Light that scatters: a cloud is added, and contrast goes as much."""
    amount, roughness = ((1.5, 2.), (2., 2.), (2.5, 1.7), (2.5, 1.5), (3., 1.4))[severity]
    brightest = float(x.max())
    cloud = plasma(x.shape[:2], roughness, rng)[..., None]
    return (x + amount * cloud) * brightest / (brightest + amount)


def brightness(x: np.ndarray, severity: int, scale: float, rng: Generator) -> np.ndarray:
    """Daylight: the value of HSV grows."""
    hsv = cv2.cvtColor(x, cv2.COLOR_RGB2HSV)
    hsv[..., 2] = (hsv[..., 2] + (.1, .2, .3, .4, .5)[severity]).clip(0, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def plasma(shape: tuple[int, int], roughness: float, rng: Generator, first: int = 2) -> np.ndarray:
    """A cloud: octaves of smooth noise, each finer and ``roughness`` times weaker than the last.

    Args:
        shape: rows and columns.
        roughness: above 1; the larger, the smoother.
        rng: what is drawn from.
        first: cells of the coarsest octave.

    Returns:
        (H, W) float32, from 0 to 1.
    """
    height, width = shape
    field, weight, cells = np.zeros(shape, dtype=np.float32), 1.0, first
    while cells <= max(shape):
        coarse = rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
        field += weight * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
        weight, cells = weight / roughness, cells * 2
    field = blur(field, 0.5)
    return (field - field.min()) / max(float(np.ptp(field)), 1e-6)
