# SPDX-License-Identifier: Apache-2.0
"""Noise and blur of ImageNet-C.

Every corruption here and beside is a function of (image (H, W, 3) float32 in 0..1, severity 0 to
4, scale = shorter side / 224, generator); what it returns may leave 0..1 and is clipped by
:func:`milan_mm.analysis.robustness.corrupt`.
"""
import cv2
import numpy as np
from numpy.random import Generator

_BORDER = cv2.BORDER_REFLECT_101


def gaussian_noise(x: np.ndarray, severity: int, scale: float, rng: Generator) -> np.ndarray:
    """Sensor noise in low light: the same spread at every pixel."""
    spread = (.08, .12, .18, .26, .38)[severity]
    return x + rng.standard_normal(x.shape, dtype=np.float32) * spread


def shot_noise(x: np.ndarray, severity: int, scale: float, rng: Generator) -> np.ndarray:
    """Light comes in photons: Poisson, white being so many of them."""
    photons = (60, 25, 12, 5, 3)[severity]
    return rng.poisson(x * photons).astype(np.float32) / photons


def impulse_noise(x: np.ndarray, severity: int, scale: float, rng: Generator) -> np.ndarray:
    """Salt and pepper: a share of all values becomes 0 or 1."""
    share = (.03, .06, .09, .17, .27)[severity]
    hit = rng.random(x.shape) < share
    salt = rng.random(x.shape) < 0.5
    return np.where(hit, salt.astype(np.float32), x)


def defocus_blur(x: np.ndarray, severity: int, scale: float, rng: Generator) -> np.ndarray:
    """Out of focus: every point becomes a disk."""
    return cv2.filter2D(x, -1, disk((3, 4, 6, 8, 10)[severity] * scale), borderType=_BORDER)


def glass_blur(x: np.ndarray, severity: int, scale: float, rng: Generator) -> np.ndarray:
    """Frosted glass: pixels are shuffled within a small window, between two slight blurs."""
    sigma = (.7, .9, 1., 1.1, 1.5)[severity] * scale
    reach = (1.8, 2.5, 3.5, 4, 5)[severity] * scale
    times = (2, 1, 3, 2, 2)[severity]
    x = blur(x, sigma)
    for _ in range(times):
        shift = rng.uniform(-reach, reach, (2, *x.shape[:2]))
        # Rounded at random, so that a reach below one pixel moves some pixels instead of none.
        dx, dy = np.floor(shift + rng.random(shift.shape)).astype(np.float32)
        x = displaced(x, dx, dy, cv2.INTER_NEAREST)
    return blur(x, sigma)


def motion_blur(x: np.ndarray, severity: int, scale: float, rng: Generator) -> np.ndarray:
    """The camera moved, along a line within 45 degrees of the horizontal."""
    length = (20, 30, 30, 30, 40)[severity] * scale
    fade = (3, 5, 8, 12, 15)[severity] * scale
    return streaked(x, length, fade, rng.uniform(-45, 45))


def zoom_blur(x: np.ndarray, severity: int, scale: float, rng: Generator) -> np.ndarray:
    """The camera moved forward: the mean of ever larger central crops."""
    factors = np.linspace(1, (1.1, 1.15, 1.2, 1.25, 1.3)[severity], 12)
    height, width = x.shape[:2]
    centre = ((width - 1) / 2, (height - 1) / 2)
    views = [cv2.warpAffine(x, cv2.getRotationMatrix2D(centre, 0, factor), (width, height),
                            flags=cv2.INTER_LINEAR, borderMode=_BORDER) for factor in factors]
    return (x + sum(views)) / (len(views) + 1)


def blur(x: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur; a sigma too small to matter gives the image back."""
    return x if sigma < 0.05 else cv2.GaussianBlur(x, (0, 0), sigma, borderType=_BORDER)


def disk(radius: float) -> np.ndarray:
    """A disk of any radius in pixels as a kernel of sum 1: the share of each pixel it covers."""
    reach, fine = int(np.ceil(radius)) + 1, 8
    at = (np.arange((2 * reach + 1) * fine) + 0.5) / fine - reach - 0.5
    inside = (at[:, None]**2 + at[None]**2 <= max(radius, 0.5)**2).astype(np.float32)
    side = 2 * reach + 1
    kernel = inside.reshape(side, fine, side, fine).sum(axis=(1, 3))
    return kernel / kernel.sum()


def streaked(x: np.ndarray, length: float, fade: float, degrees: float) -> np.ndarray:
    """Every point becomes a line that starts in it and fades as a Gaussian."""
    reach = int(np.ceil(length)) + 1
    along = np.arange(0, max(length, 0.25), 0.25)
    weights = np.exp(-along**2 / (2 * max(fade, 0.1)**2))
    angle = np.deg2rad(degrees)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), dtype=np.float32)
    columns, rows = reach + along * np.cos(angle), reach + along * np.sin(angle)
    j, i = columns.astype(int), rows.astype(int)
    a, b = columns - j, rows - i
    for di, dj, share in ((0, 0, (1 - a) * (1 - b)), (0, 1, a * (1 - b)), (1, 0, (1 - a) * b),
                          (1, 1, a * b)):  # shared out to the four nearest
        np.add.at(kernel, (i + di, j + dj), (weights * share).astype(np.float32))
    kernel /= kernel.sum()
    # Few entries of a large kernel are not 0: shifted copies cost less than a filter.
    padded = cv2.copyMakeBorder(x, reach, reach, reach, reach, _BORDER)
    height, width = x.shape[:2]
    out = np.zeros_like(x)
    for i, j in zip(*kernel.nonzero()):
        out += padded[i:i + height, j:j + width] * kernel[i, j]
    return out


def displaced(x: np.ndarray, dx: np.ndarray, dy: np.ndarray, how: int) -> np.ndarray:
    """Every pixel taken from (dx, dy) pixels away; both (H, W) float32."""
    height, width = x.shape[:2]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32),
                                np.arange(height, dtype=np.float32))
    return cv2.remap(x, columns + dx, rows + dy, how, borderMode=_BORDER)
