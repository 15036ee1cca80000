# SPDX-License-Identifier: Apache-2.0
"""Textured backgrounds made from random numbers, and cut-outs pasted on them.

On flat white a cut-out can be told by its outline and colour sums alone, and features of random weights do nearly as well
as learned ones. The backgrounds are therefore strong (full range of colours, all scales) and independent of the class.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
from PIL import Image

POOL_SIDE = 160
"""Side of a background of the pool in pixels; pictures take random crops of it."""


def _colours(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random colours (count, 3) in 0..1, from greyish to saturated, from dark to light."""
    hue, sat, val = rng.random(count), rng.beta(1.2, 1.5, count), rng.uniform(0.1, 1.0, count)
    return np.array([colorsys.hsv_to_rgb(*c) for c in zip(hue, sat, val, strict=True)])


def _value_noise(rng: np.random.Generator, side: int, cells: int, stretch: float = 1.0) -> np.ndarray:
    """Smooth noise (side, side) in 0..1 with ``cells`` random nodes a side, interpolated bicubically."""
    shape = (max(2, round(cells * stretch)), max(2, cells))
    nodes = Image.fromarray(rng.random(shape).astype(np.float32))
    noise = np.asarray(nodes.resize((side, side), Image.Resampling.BICUBIC))
    return (noise - noise.min()) / max(float(np.ptp(noise)), 1e-6)


def _fractal(rng: np.random.Generator, side: int) -> np.ndarray:
    """Noise of several scales; how fast fine scales fade is random, from clouds to gravel."""
    fade, stretch = rng.uniform(0.4, 0.95), rng.choice([1.0, 1.0, 0.2, 5.0])
    total = sum(fade**i * _value_noise(rng, side, cells, stretch) for i, cells in enumerate((3, 6, 12, 24, 48)))
    return (total - total.min()) / np.ptp(total)


def _plane(rng: np.random.Generator, side: int, warp: float) -> np.ndarray:
    """A coordinate (side, side) in pixels that rises in a random direction, bent by smooth noise."""
    y, x = np.mgrid[:side, :side]
    angle = rng.uniform(0, np.pi)
    return x * np.cos(angle) + y * np.sin(angle) + warp * _value_noise(rng, side, 5)


def _stripes(rng: np.random.Generator, side: int) -> np.ndarray:
    wave = np.sin(_plane(rng, side, rng.uniform(0, 40)) * 2 * np.pi / rng.uniform(5, 30))
    return 0.5 + 0.5 * np.clip(wave * rng.uniform(1, 6), -1, 1)


def _checker(rng: np.random.Generator, side: int) -> np.ndarray:
    period, warp = rng.uniform(8, 36), rng.uniform(0, 25)
    return ((_plane(rng, side, warp) // (period / 2)) + (_plane(rng, side, warp) // (period / 2))) % 3 / 2


def _cells(rng: np.random.Generator, side: int) -> np.ndarray:
    """A mosaic: every pixel takes the random level of the nearest of some random points."""
    points = rng.uniform(0, side, (int(rng.integers(8, 50)), 2))
    y, x = np.mgrid[:side, :side]
    distance = (y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2
    return rng.random(len(points))[distance.argmin(-1)]


def _blobs(rng: np.random.Generator, side: int) -> np.ndarray:
    """Overlapping discs and ellipses of random levels: like things lying about, but no things."""
    y, x = np.mgrid[:side, :side]
    out = _value_noise(rng, side, 4)
    for _ in range(int(rng.integers(6, 25))):
        cy, cx, ry, rx = *rng.uniform(0, side, 2), *rng.uniform(4, 26, 2)
        inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        out[inside] = rng.random() + 0.15 * (out[inside] - 0.5)
    return np.clip(out, 0, 1)


def _gradient(rng: np.random.Generator, side: int) -> np.ndarray:
    plane = _plane(rng, side, rng.uniform(0, 60))
    return (plane - plane.min()) / np.ptp(plane)


_PATTERNS: tuple[Callable[[np.random.Generator, int], np.ndarray], ...] = (
    _fractal, _fractal, _stripes, _checker, _cells, _blobs, _blobs, _gradient,
)  # fmt: skip


def _background(rng: np.random.Generator, side: int) -> np.ndarray:
    """One texture (side, side, 3) uint8: a pattern seen through a random palette, half the time mixed with another one."""
    level = _PATTERNS[rng.integers(len(_PATTERNS))](rng, side)
    if rng.random() < 0.5:
        other = _PATTERNS[rng.integers(len(_PATTERNS))](rng, side)
        mask = _value_noise(rng, side, 4)[..., None] > rng.uniform(0.3, 0.7)
        picture = np.where(mask, _palette(rng, level), _palette(rng, other))
    else:
        picture = _palette(rng, level)
    picture = picture + rng.normal(0, rng.uniform(0, 0.06), (side, side, 3))
    picture += rng.uniform(0, 0.3) * (_value_noise(rng, side, 5)[..., None] - 0.5)
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _palette(rng: np.random.Generator, level: np.ndarray) -> np.ndarray:
    """Levels (H, W) in 0..1 turned into colours (H, W, 3) along a palette of two to five random colours."""
    colours = _colours(rng, int(rng.integers(2, 6)))
    stops = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(level, stops, colours[:, c]) for c in range(3)], -1)


class Backgrounds:
    """A pool of textures from which any number of different backgrounds are cut.

    Args:
        seed: Two pools of different seeds share no texture (training and held-out pictures take different pools).
        count: Textures in the pool; a crop of it is also mirrored, turned and its colour channels swapped, so pictures
            rarely see the same background twice.
    """

    def __init__(self, seed: int | list[int], count: int = 256) -> None:
        rng = np.random.default_rng(seed)
        self.pool = np.stack([_background(rng, POOL_SIDE) for _ in range(count)])

    def crop(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """A background (size, size, 3) uint8."""
        source = self.pool[rng.integers(len(self.pool))]
        if size > POOL_SIDE:
            source = np.asarray(Image.fromarray(source).resize((2 * size, 2 * size), Image.Resampling.BICUBIC))
        y, x = rng.integers(0, source.shape[0] - size + 1, 2)
        out = source[y : y + size, x : x + size, rng.permutation(3)]
        out = np.rot90(out, rng.integers(4))
        return np.ascontiguousarray(out[:, ::-1] if rng.random() < 0.5 else out)


def paste(cutout: Image.Image, background: np.ndarray, rng: np.random.Generator,
          scale: tuple[float, float] = (0.55, 0.9), degrees: float = 15.0) -> Image.Image:  # fmt: skip
    """Paste a cut-out on a background at a random place, size and angle.

    Args:
        cutout: RGBA picture of any size.
        background: (S, S, 3) uint8.
        rng: Source of place, size and angle.
        scale: Range of the cut-out's longer side as a share of S.
        degrees: Largest rotation to either side.
    """
    size = background.shape[0]
    box = cutout.getchannel('A').getbbox()
    cutout = cutout.crop(box) if box else cutout
    share = rng.uniform(*scale) * size / max(cutout.size)
    angle, mid = np.deg2rad(rng.uniform(-degrees, degrees)), np.array(cutout.size) / 2
    # A small cut-out is enlarged by the affine map itself; a large one is reduced first, else it would alias.
    if share < 0.5:
        cutout = cutout.resize(tuple(max(1, round(2 * share * s)) for s in cutout.size), Image.Resampling.BOX)
        share, mid = 0.5, np.array(cutout.size) / 2
    half = share * (np.abs(np.cos(angle)) * mid + np.abs(np.sin(angle)) * mid[::-1])
    centre = [rng.uniform(min(h, size / 2), max(size - h, size / 2)) for h in half]
    cos, sin = np.cos(angle) / share, np.sin(angle) / share
    matrix = (cos, sin, mid[0] - cos * centre[0] - sin * centre[1], -sin, cos, mid[1] + sin * centre[0] - cos * centre[1])
    # Premultiplied alpha ('RGBa'), else the colour of invisible pixels would bleed into the edges.
    placed = cutout.convert('RGBa').transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    out = Image.fromarray(background)
    out.paste(placed.convert('RGBA'), (0, 0), placed.getchannel('a'))
    return out
