# SPDX-License-Identifier: Apache-2.0
"""Textured backgrounds made from random numbers, and cut-outs pasted on them.

On flat white a cut-out can be told by its outline and sums of colour alone, and features of
random weights do nearly as well as learned ones. The backgrounds are therefore strong (all
colours, all scales) and know nothing of the class.
"""
import colorsys
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from ...structures import pair

POOL_SIDE = 160
"""Side of a texture of the pool in pixels; images take random crops of it."""
SCALE = (0.55, 0.9)
"""Range of a cut-out's longer side, as a share of the image's."""


def _colours(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random colours (count, 3) in 0..1: greyish to saturated, dark to light."""
    hsv = zip(rng.random(count), rng.beta(1.2, 1.5, count), rng.uniform(0.1, 1.0, count))
    return np.array([colorsys.hsv_to_rgb(*colour) for colour in hsv])


def _noise(rng: np.random.Generator, side: int, cells: int, stretch: float = 1.0) -> np.ndarray:
    """Smooth noise (side, side) in 0..1, with ``cells`` random nodes a side."""
    shape = (max(2, round(cells * stretch)), max(2, cells))
    nodes = Image.fromarray(rng.random(shape).astype(np.float32))
    noise = np.asarray(nodes.resize((side, side), Image.Resampling.BICUBIC))
    return _spread(noise)


def _spread(level: np.ndarray) -> np.ndarray:
    """Levels scaled to fill 0..1."""
    return (level - level.min()) / max(float(np.ptp(level)), 1e-6)


def _fractal(rng: np.random.Generator, side: int) -> np.ndarray:
    """Noise of several scales; how fast the fine ones fade is random: from clouds to gravel."""
    fade, stretch = rng.uniform(0.4, 0.95), rng.choice([1.0, 1.0, 0.2, 5.0])
    scales = (3, 6, 12, 24, 48)
    waves = (fade**i * _noise(rng, side, n, stretch) for i, n in enumerate(scales))
    return _spread(sum(waves, np.zeros(())))


def _plane(rng: np.random.Generator, side: int, warp: float) -> np.ndarray:
    """A coordinate (side, side) in pixels that rises in a random direction, bent by noise."""
    y, x = np.mgrid[:side, :side]
    angle = rng.uniform(0, np.pi)
    return x * np.cos(angle) + y * np.sin(angle) + warp * _noise(rng, side, 5)


def _stripes(rng: np.random.Generator, side: int) -> np.ndarray:
    wave = np.sin(_plane(rng, side, rng.uniform(0, 40)) * 2 * np.pi / rng.uniform(5, 30))
    return 0.5 + 0.5 * np.clip(wave * rng.uniform(1, 6), -1, 1)


def _checker(rng: np.random.Generator, side: int) -> np.ndarray:
    period, warp = rng.uniform(4, 18), rng.uniform(0, 25)
    bands = [_plane(rng, side, warp) // period for _ in range(2)]
    return (bands[0] + bands[1]) % 3 / 2


def _cells(rng: np.random.Generator, side: int) -> np.ndarray:
    """A mosaic: every pixel takes the random level of the nearest of some random points."""
    points = rng.uniform(0, side, (int(rng.integers(8, 50)), 2))
    y, x = np.mgrid[:side, :side]
    distance = (y[..., None] - points[:, 0])**2 + (x[..., None] - points[:, 1])**2
    return rng.random(len(points))[distance.argmin(-1)]


def _blobs(rng: np.random.Generator, side: int) -> np.ndarray:
    """Overlapping ellipses of random levels: like things lying about, but no things."""
    y, x = np.mgrid[:side, :side]
    level = _noise(rng, side, 4)
    for _ in range(int(rng.integers(6, 25))):
        centre_y, centre_x = rng.uniform(0, side, 2)
        radius_y, radius_x = rng.uniform(4, 26, 2)
        inside = ((y - centre_y) / radius_y)**2 + ((x - centre_x) / radius_x)**2 < 1
        level[inside] = rng.random() + 0.15 * (level[inside] - 0.5)
    return np.clip(level, 0, 1)


def _gradient(rng: np.random.Generator, side: int) -> np.ndarray:
    return _spread(_plane(rng, side, rng.uniform(0, 60)))


_PATTERNS: Sequence[Callable[[np.random.Generator, int], np.ndarray]] = (
    _fractal, _fractal, _stripes, _checker, _cells, _blobs, _blobs, _gradient)


def _coloured(rng: np.random.Generator, side: int) -> np.ndarray:
    """A random pattern (side, side, 3) in two to five random colours."""
    level = _PATTERNS[int(rng.integers(len(_PATTERNS)))](rng, side)
    colours = _colours(rng, int(rng.integers(2, 6)))
    stops = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(level, stops, colours[:, c]) for c in range(3)], -1)


def make_texture(rng: np.random.Generator, side: int) -> np.ndarray:
    """One texture (side, side, 3) uint8: a pattern, or two side by side, with grain and light."""
    image = _coloured(rng, side)
    if rng.random() < 0.5:
        here = _noise(rng, side, 4)[..., None] > rng.uniform(0.3, 0.7)
        image = np.where(here, image, _coloured(rng, side))
    image = image + rng.normal(0, rng.uniform(0, 0.06), (side, side, 3))
    image += rng.uniform(0, 0.3) * (_noise(rng, side, 5)[..., None] - 0.5)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


class Backgrounds:
    """A pool of textures from which any number of backgrounds are cut.

    Args:
        seed: pools of different seeds share no texture.
        count: textures in the pool. A crop is also mirrored, turned, and its colour channels
            swapped, so that images rarely see a background twice.
    """

    def __init__(self, seed: int | Sequence[int], count: int = 256) -> None:
        rng = np.random.default_rng(seed)
        self.pool = np.stack([make_texture(rng, POOL_SIDE) for _ in range(count)])

    def crop(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """A background (size, size, 3) uint8."""
        texture = self.pool[rng.integers(len(self.pool))]
        if size > POOL_SIDE:
            enlarged = Image.fromarray(texture).resize((2 * size, 2 * size))
            texture = np.asarray(enlarged)
        y, x = rng.integers(0, texture.shape[0] - size + 1, 2)
        crop = np.rot90(texture[y:y + size, x:x + size, rng.permutation(3)], int(rng.integers(4)))
        return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)


def paste(cutout: Image.Image,
          background: np.ndarray,
          rng: np.random.Generator,
          scale: tuple[float, float] = SCALE,
          degrees: float = 15.0) -> Image.Image:
    """Pastes a cut-out on a background (S, S, 3) uint8; for the rest see :func:`place`."""
    placed = place(cutout, background.shape[0], rng, scale, degrees)
    image = Image.fromarray(background)
    image.paste(placed, (0, 0), placed)
    return image


def place(cutout: Image.Image, size: int, rng: np.random.Generator,
          scale: tuple[float, float], degrees: float = 15.0) -> Image.Image:
    """Puts a cut-out on an invisible square, at a random place, size and angle.

    Args:
        cutout: RGBA image of any size.
        size: side S of the square in pixels.
        rng: source of place, size and angle.
        scale: range of the cut-out's longer side, as a share of S.
        degrees: largest rotation to either side.

    Returns:
        RGBA image, S x S.
    """
    box = cutout.getchannel('A').getbbox()
    cutout = cutout.crop(box) if box else cutout
    # How many pixels of the result a pixel of the cut-out becomes.
    zoom = rng.uniform(*scale) * size / max(cutout.size)
    if zoom < 0.5:  # the affine map looks at four pixels only, and would skip the others
        shape = pair(max(1, round(2 * zoom * side)) for side in cutout.size)
        cutout, zoom = cutout.resize(shape, Image.Resampling.BOX), 0.5
    angle, middle = np.deg2rad(rng.uniform(-degrees, degrees)), np.array(cutout.size) / 2
    half = zoom * (abs(np.cos(angle)) * middle + abs(np.sin(angle)) * middle[::-1])
    x, y = (rng.uniform(min(h, size / 2), max(size - h, size / 2)) for h in half)
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    matrix = (cos, sin, middle[0] - cos * x - sin * y, -sin, cos, middle[1] + sin * x - cos * y)
    # Alpha is multiplied in first ('RGBa'): colours of invisible pixels must not bleed in.
    return cutout.convert('RGBa').transform((size, size), Image.Transform.AFFINE, matrix,
                                            Image.Resampling.BILINEAR).convert('RGBA')
