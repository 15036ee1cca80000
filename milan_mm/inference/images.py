# SPDX-License-Identifier: Apache-2.0
"""From images or paths to a batch of pixels."""
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..datasets import LoadPILImage, PackImageInputs, ResizeAndCenterCrop
from ..datasets.decoding import composite, to_rgb
from ..errors import MilanError

ImageLike = str | Path | Image.Image


def load_pixels(images: ImageLike | Sequence[ImageLike], size: tuple[int, int],
                crop_ratio: float = 1) -> Tensor:
    """Reads, crops and resizes images.

    Args:
        images: Pillow images or paths, one or a list.
        size: H and W.
        crop_ratio: see :class:`ResizeAndCenterCrop`; 1 keeps as much of an image as fits.

    Returns:
        (B, 3, H, W) in uint8, RGB.

    Raises:
        MilanError: if there is none, or one cannot be read.
    """
    if isinstance(images, (str, Path, Image.Image)):
        images = [images]
    if len(images) == 0:
        raise MilanError('got an empty list of images')
    crop, pack = ResizeAndCenterCrop(size, crop_ratio), PackImageInputs()
    return torch.stack([pack(crop(dict(img=_as_rgb(image))))['inputs'] for image in images])


def _as_rgb(image: ImageLike) -> Image.Image:
    if isinstance(image, (str, Path)):
        return LoadPILImage()(dict(img_path=str(image)))['img']
    if not isinstance(image, Image.Image):
        raise MilanError(f'expected a Pillow image or a path, got {type(image).__name__}; '
                         'for an array: PIL.Image.fromarray(array)')
    return composite(ImageOps.exif_transpose(to_rgb(image)))
