# SPDX-License-Identifier: Apache-2.0
"""From tensors to small RGB images; pure functions, all panels of an image the same size."""
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..errors import MilanError

Grid = tuple[int, int]

IMPORTANCE_COLOURS = 'inferno'
ERROR_COLOURS = 'viridis'
_GREY = 150  # of patches that are not shown: apart from white paper and from black
_SPREAD = 2.2  # standard deviations from the middle of a colour channel to its end


class Tile(NamedTuple):
    """A panel: what is drawn, what stands below it, its description, and whether it is a photo."""
    image: Image.Image
    caption: str
    alt: str
    photograph: bool


class ColourBasis(NamedTuple):
    """Three directions in feature space that stand for red, green and blue.

    Attributes:
        mean: (T,) what is subtracted.
        axes: (T, 3) projections on them have variance 1 on the features they were fitted to.
    """
    mean: Tensor
    axes: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Features (..., T) to coordinates (..., 3)."""
        return (directions(features) - self.mean) @ self.axes


def as_image(pixels: Tensor, scale: int = 1) -> Image.Image:
    """Pixels (3, H, W) uint8 as an image, bicubic where enlarged."""
    image = Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
    return image if scale == 1 else image.resize(
        (image.width * scale, image.height * scale), Image.Resampling.BICUBIC)


def importance_panel(pixels: Tensor, importance: Tensor, grid: Grid, scale: int = 1) -> Image.Image:
    """The importance as a heat map over the faded image; the brightest patch has the most.

    Args:
        pixels: (3, H, W) uint8.
        importance: (N,), not negative. Its largest value gets the brightest colour.
        grid: rows and columns of patches.
        scale: by how much the image is enlarged.
    """
    image = as_image(pixels, scale)
    heat = coloured(importance / importance.max().clamp_min(1e-12), grid, IMPORTANCE_COLOURS)
    heat = heat.resize(image.size, Image.Resampling.NEAREST)
    # The image's contours stay visible, and too weak to pass for heat.
    faded = image.convert('L').convert('RGB')
    return Image.blend(heat, faded, 0.25)


def mask_panel(pixels: Tensor, visible: Tensor, grid: Grid, scale: int = 1) -> Image.Image:
    """The image as the student gets it: patches that are masked are grey.

    Args:
        pixels: (3, H, W) uint8.
        visible: (V,) raster indices of the patches seen.
        grid: rows and columns of patches.
        scale: by how much the image is enlarged.
    """
    image = as_image(pixels, scale)
    seen = torch.zeros(grid[0] * grid[1], dtype=torch.uint8)
    seen[visible.cpu()] = 255
    stencil = Image.fromarray(seen.view(grid).numpy()).resize(
        image.size, Image.Resampling.NEAREST)
    return Image.composite(image, Image.new('RGB', image.size, (_GREY, ) * 3), stencil)


def error_panel(errors: Tensor,
                grid: Grid,
                size: tuple[int, int],
                highest: float,
                visible: Tensor | None = None) -> Image.Image:
    """The error of each patch's prediction; bright is wrong.

    Args:
        errors: (N,), not negative.
        grid: rows and columns of patches.
        size: height and width of the panel in pixels.
        highest: what gets the brightest colour, the same for all images that are compared.
        visible: (V,) patches the student saw; each gets a white dot.
    """
    panel = coloured((errors / max(highest, 1e-12)).clamp(0, 1), grid, ERROR_COLOURS)
    panel = panel.resize(size[::-1], Image.Resampling.NEAREST)
    if visible is None:
        return panel
    pixels = np.array(panel)
    height, width = size[0] / grid[0], size[1] / grid[1]
    radius = max(1, round(min(height, width) / 10))
    for index in visible.tolist():
        row, column = divmod(index, grid[1])
        y, x = round((row + 0.5) * height), round((column + 0.5) * width)
        pixels[y - radius - 1:y + radius + 1, x - radius - 1:x + radius + 1] = 0
        pixels[y - radius:y + radius, x - radius:x + radius] = 255
    return Image.fromarray(pixels)


def feature_panel(scores: Tensor, grid: Grid, size: tuple[int, int]) -> Image.Image:
    """Coordinates (N, 3) of a :class:`ColourBasis` as colours: alike patches look alike.

    Args:
        scores: (N, 3).
        grid: rows and columns of patches.
        size: height and width of the panel in pixels.
    """
    colours = (0.5 + scores.float() / (2 * _SPREAD)).clamp(0, 1) * 255
    pixels = colours.round().to(torch.uint8).view(*grid, 3).cpu().numpy()
    return Image.fromarray(pixels).resize(size[::-1], Image.Resampling.NEAREST)


def directions(features: Tensor) -> Tensor:
    """Features (..., T) at unit length: the losses and measures here look at directions only."""
    return F.normalize(features.float(), dim=-1)


def fit_colours(features: Tensor) -> ColourBasis:
    """The three principal components of some features' directions.

    Args:
        features: (n, T), n at least 2. Directions without variance give no colour.
    """
    if features.ndim != 2 or len(features) < 2:
        raise MilanError(f'expected features (n, T) of at least 2 patches, got '
                         f'{tuple(features.shape)}; flatten images and patches into n')
    centred = directions(features)
    mean = centred.mean(dim=0)
    _, strengths, axes = torch.linalg.svd(centred - mean, full_matrices=False)
    strengths, axes = strengths[:3], axes[:3].T
    # The sign of a component is arbitrary: fixed, so that a page is the same every time.
    signs = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    deviation = strengths / len(features)**0.5
    used = deviation > 1e-6
    axes = torch.where(used, axes * signs / deviation.clamp_min(1e-6), torch.zeros_like(axes))
    return ColourBasis(mean, F.pad(axes, (0, 3 - axes.shape[1])))


def turn_colours(basis: ColourBasis, features: Tensor, like: Tensor) -> ColourBasis:
    """Turns a basis so that its colours come as close as can be to those of another one.

    Features of two encoders live in different spaces, and each has its own components; which of
    them is red is arbitrary. A rotation (orthogonal Procrustes) of the three coordinates makes
    the colours comparable and changes nothing else: distances between patches stay.

    Args:
        basis: of ``features``.
        features: (n, T).
        like: (n, 3) coordinates of the same patches in the other basis.
    """
    left, _, right = torch.linalg.svd(basis.scores(features).T @ like)
    return basis._replace(axes=basis.axes @ (left @ right))


def coloured(values: Tensor, grid: Grid, name: str) -> Image.Image:
    """Values (N,) in 0..1 as an image with a pixel a patch.

    Args:
        values: in raster order.
        grid: rows and columns of patches.
        name: of a colour map of matplotlib.

    Raises:
        MilanError: if there is not one value a patch.
    """
    if values.numel() != grid[0] * grid[1]:
        raise MilanError(f'expected one value for each of {grid[0]} x {grid[1]} patches, got '
                         f'{values.numel()}; leave the CLS token out')
    pixels = colormaps[name](values.float().view(grid).cpu().numpy(), bytes=True)
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
