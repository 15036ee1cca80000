# SPDX-License-Identifier: Apache-2.0
"""From a file to RGB pixels, whatever the file holds."""
import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError, features

from ..errors import MilanError, UnreadableImageError
from ..wording import printable
from .depth import WIDE_MODES, refuse_lost_bits, to_8_bits

_AVIF = 'avif' in features.modules and bool(features.check('avif'))
# By content, not by name; MPO opens as JPEG. Pillow knows some forty formats, and one of them
# starts a program.
FORMATS = ('PNG', 'JPEG', 'WEBP', 'BMP', 'DIB', 'TIFF', 'GIF', *['AVIF'] * _AVIF)
SUFFIXES = ('.png', '.jpg', '.jpeg', '.jpe', '.jfif', '.webp', '.bmp', '.tif', '.tiff', '.gif',
            *['.avif'] * _AVIF)
MAX_PIXELS = 2**27
"""134 megapixels: more than a camera takes at once, and half a gigabyte a copy when decoded."""
_ORIENTATION = 0x0112  # in EXIF; read by exif_transpose
# Of the process or the machine, not of the image.
_NOT_OF_THE_FILE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def open_image(path: str | Path, max_pixels: int = MAX_PIXELS,
               value_range: tuple[float, float] | None = None,
               content: bytes | None = None) -> Image.Image:
    """Decodes an image, upright, as RGB, or as RGBA where the file has transparency.

    Palettes are looked up, grey and CMYK converted, 16-bit and float channels scaled to 8 bits,
    the EXIF orientation applied; of an animation the first frame is taken.

    Args:
        path: of a file whose content is in one of :data:`FORMATS`.
        max_pixels: of a larger image only the header is read.
        value_range: see :func:`to_8_bits`.
        content: of the file, where it has been read already; the path only names it then.

    Raises:
        UnreadableImageError: if the file is missing, truncated, no image or no regular file, too
            large, or its values would come out black or white.
    """
    with opened(path, max_pixels, content) as image:
        deep = any(';16' in str(tile[3]) for tile in image.tile)
        image.load()
        if deep and image.mode not in WIDE_MODES:
            refuse_lost_bits(image)
        if image.mode == 'RGB' and 'transparency' not in image.info and image.getexif().get(
                _ORIENTATION, 1) == 1:
            return image  # a large one not copied
        # A palette is looked up first: transposing keeps its transparency only as a note.
        return ImageOps.exif_transpose(to_rgb(image, value_range))


@contextmanager
def opened(path: str | Path, max_pixels: int = MAX_PIXELS,
           content: bytes | None = None) -> Iterator[ImageFile.ImageFile]:
    """An image of which the header is read; whatever fails within the block names the file.

    Arguments as of :func:`open_image`.

    Raises:
        UnreadableImageError: see :func:`open_image`.
    """
    if Image.MAX_IMAGE_PIXELS is not None:  # Pillow refuses above twice that, and warns below
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    try:
        if content is None and not stat.S_ISREG(os.stat(path).st_mode):
            raise UnreadableImageError('it is no regular file')  # a pipe would wait for its writer
        with Image.open(path if content is None else io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise UnreadableImageError(
                    f'its {image.width} x {image.height} pixels are more than {max_pixels}. Make '
                    'it smaller, or in a config allow more: '
                    'train_dataloader.dataset.pipeline.0.max_pixels=N')
            yield image
    except MemoryError:
        raise
    except Exception as error:
        ours = isinstance(error, MilanError) and not isinstance(error, UnreadableImageError)
        if ours or getattr(error, 'errno', None) in _NOT_OF_THE_FILE:
            raise
        raise UnreadableImageError(f'cannot decode {printable(path)}: {_words(error)}') from error


def composite(image: Image.Image,
              background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """Lays an image with alpha over a colour; an RGB image is given back as it is."""
    if image.mode != 'RGBA':
        return image
    below = Image.new('RGBA', image.size, (*background, 255))
    return Image.alpha_composite(below, image).convert('RGB')


def to_rgb(image: Image.Image, value_range: tuple[float, float] | None = None) -> Image.Image:
    """Any mode to RGB, or to RGBA where something is transparent; not yet turned upright.

    Raises:
        UnreadableImageError: see :func:`to_8_bits`.
    """
    exif = image.getexif()
    if image.mode in WIDE_MODES:
        pixels = to_8_bits(np.asarray(image), image.mode, value_range)
        converted = Image.fromarray(pixels).convert('RGB')
    elif image.mode in ('RGBA', 'LA', 'PA', 'La', 'RGBa') or 'transparency' in image.info:
        converted = image.convert('RGBA')
        if converted.getchannel('A').getextrema()[0] == 255:  # an alpha channel that hides nothing
            converted = converted.convert('RGB')
    else:
        converted = image.convert('RGB')
    converted.info.pop('exif', None)
    converted.getexif()[_ORIENTATION] = exif.get(_ORIENTATION, 1)
    return converted


def _words(error: Exception) -> str:
    if isinstance(error, UnreadableImageError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):  # whose own text repeats the path
        return 'its content is no image that is read here (nor are TIFFs of over four channels)'
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f'{type(error).__name__}: {error}'
