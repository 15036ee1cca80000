# SPDX-License-Identifier: Apache-2.0
"""From a file to RGB pixels, whatever the file holds."""
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import MilanError

# By content, not by name; MPO opens as JPEG. Pillow knows some forty formats, and one of them
# starts a program.
FORMATS = ('PNG', 'JPEG', 'WEBP', 'BMP', 'DIB', 'TIFF', 'GIF')
SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.tif', '.tiff', '.gif')


class UnreadableImageError(MilanError):
    """A file that cannot be decoded; the message names it."""


def open_image(path: str | Path) -> Image.Image:
    """Decodes an image, upright, as RGB, or as RGBA where the file has transparency.

    Palettes are looked up, grey and CMYK converted, 16-bit and float channels scaled to 8 bits,
    the EXIF orientation applied; of an animation the first frame is taken.

    Args:
        path: of a file whose content is in one of :data:`FORMATS`.

    Raises:
        UnreadableImageError: if the file is missing, truncated or no image.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.load()
            # A palette is looked up first: transposing keeps its transparency only as a note.
            return ImageOps.exif_transpose(to_rgb(image))
    except MemoryError:
        raise
    except Exception as error:
        raise UnreadableImageError(
            f'cannot decode {path}: {type(error).__name__}: {error}') from error


def composite(image: Image.Image,
              background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """Lays an image with alpha over a colour; an RGB image is given back as it is."""
    if image.mode != 'RGBA':
        return image
    below = Image.new('RGBA', image.size, (*background, 255))
    return Image.alpha_composite(below, image).convert('RGB')


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB, or to RGBA where something is transparent; not yet turned upright."""
    exif = image.getexif()
    if image.mode in ('I;16', 'I;16L', 'I;16B', 'I;16N', 'I', 'F'):
        converted = Image.fromarray(_to_8_bits(np.asarray(image), image.mode)).convert('RGB')
    elif image.mode in ('RGBA', 'LA', 'PA', 'La', 'RGBa') or 'transparency' in image.info:
        converted = image.convert('RGBA')
        if converted.getchannel('A').getextrema()[0] == 255:  # an alpha channel that hides nothing
            converted = converted.convert('RGB')
    else:
        converted = image.convert('RGB')
    converted.info.pop('exif', None)
    converted.getexif()[0x0112] = exif.get(0x0112, 1)  # orientation, for exif_transpose
    return converted


def _to_8_bits(pixels: np.ndarray, mode: str) -> np.ndarray:
    if mode == 'F':  # the range of a float image is a convention; 0..1 and 0..255 are common
        pixels = pixels * (255 if np.nanmax(pixels) <= 1 else 1)
        return np.nan_to_num(pixels).clip(0, 255).astype(np.uint8)
    # Pillow opens 16-bit grey as I;16 or, in older releases, as I.
    return (pixels.astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)
