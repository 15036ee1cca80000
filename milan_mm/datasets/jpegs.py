# SPDX-License-Identifier: Apache-2.0
"""JPEGs decoded when the crop is known, and at no more than the scale that the crop needs."""
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .channels import resized
from .decoding import MAX_PIXELS, open_image, opened

SPARE = 1.25
"""A crop is decoded at this many times the size wanted, or more. Reducing 2, 4 or 8 pixels to one
is the decoder's own, rougher filter, and the bicubic one that follows hides it: a crop of just so
many pixels is 1.7 of 255 levels off on average, the average crop half a level. With 1 it were up to
3.6, with 2 up to 0.8, and large images a fifth slower."""
_ORIENTATION = 0x0112  # in EXIF
# How a stored image becomes upright: transposed first, then mirrored left-right and top-bottom.
_TURNS = {1: (False, False, False), 2: (False, True, False), 3: (False, True, True),
          4: (False, False, True), 5: (True, False, False), 6: (True, True, False),
          7: (True, True, True), 8: (True, False, True)}
# OpenCV's flags of the scales; its names say grey where they are not joined with a colour's.
_SCALES = {1: 0, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
           8: cv2.IMREAD_REDUCED_GRAYSCALE_8}
_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


class JPEG:
    """A JPEG of which the header is read.

    Args:
        path: of its file, for messages.
        content: of the file.
        stored_size: width and height before it is turned upright.
        orientation: as EXIF numbers it.
        max_pixels: see :func:`open_image`, which decodes what is odd.

    Attributes:
        size: width and height, upright.
    """

    def __init__(self, path: str | Path, content: bytes, stored_size: tuple[int, int],
                 orientation: int = 1, max_pixels: int = MAX_PIXELS) -> None:
        self.path, self.content, self.max_pixels = path, content, max_pixels
        self.stored_size, self.turn = stored_size, _TURNS[orientation]
        self.size = stored_size[::-1] if self.turn[0] else stored_size

    def cropped(self, box: tuple[int, int, int, int], wanted: tuple[int, int]) -> np.ndarray:
        """A part of the image, resized once, bicubic and antialiased.

        Args:
            box: left, top, right, bottom, in whole pixels of the upright image.
            wanted: height and width of the result.

        Returns:
            Pixels (H, W, 3) in RGB, uint8.

        Raises:
            UnreadableImageError: see :func:`open_image`.
        """
        transposed, left_right, top_bottom = self.turn
        left, top, right, bottom = box
        size = wanted
        if left_right:
            left, right = self.size[0] - right, self.size[0] - left
        if top_bottom:
            top, bottom = self.size[1] - bottom, self.size[1] - top
        if transposed:
            left, top, right, bottom, size = top, left, bottom, right, size[::-1]
        shrink = min((right - left) / size[1], (bottom - top) / size[0]) / SPARE
        factor = next((f for f in (8, 4, 2) if f <= shrink), 1)
        pixels = self._decoded(factor)
        if pixels is None:  # whatever is wrong with it, the other way says it
            image = open_image(self.path, self.max_pixels, content=self.content)
            return np.asarray(image.resize(wanted[::-1], Image.Resampling.BICUBIC, box=box))
        if factor == 1:
            pixels = resized(pixels, (left, top, right, bottom), size)
        else:
            inner = left / factor, top / factor, right / factor, bottom / factor
            pixels = np.asarray(Image.fromarray(pixels).resize(  # PyTorch has no such boxes
                size[::-1], Image.Resampling.BICUBIC, box=inner))
        if transposed:
            pixels = pixels.transpose(1, 0, 2)
        return pixels[::-1 if top_bottom else 1, ::-1 if left_right else 1]

    def _decoded(self, factor: int) -> np.ndarray | None:
        """Pixels (H, W, 3) as stored, each side divided by ``factor``; None if that fails."""
        try:
            pixels = cv2.imdecode(np.frombuffer(self.content, np.uint8), _SCALES[factor] | _RGB)
        except cv2.error:
            return None
        width, height = (-(-side // factor) for side in self.stored_size)
        return pixels if pixels is not None and pixels.shape == (height, width, 3) else None

    def __array__(self, dtype: type | None = None, copy: bool | None = None) -> np.ndarray:
        """All pixels, for transforms that do not crop."""
        return np.array(open_image(self.path, self.max_pixels, content=self.content), dtype=dtype)


def open_jpeg(path: str | Path, max_pixels: int = MAX_PIXELS,
              content: bytes | None = None) -> JPEG | None:
    """The header of a JPEG, or None for what :func:`open_image` had better decode.

    That are other kinds of files, CMYK, and files that do not go on to a JPEG's end. Arguments as
    of that function.

    Raises:
        UnreadableImageError: see :func:`open_image`.
    """
    with opened(path, max_pixels, content) as image:
        if image.format != 'JPEG' or image.mode not in ('RGB', 'L'):
            return None
        orientation = image.getexif().get(_ORIENTATION, 1)
        scan = image.fp.tell()  # type: ignore[union-attr]
        if content is None:
            image.fp.seek(0)  # type: ignore[union-attr]
            content = image.fp.read()  # type: ignore[union-attr]
        if content.rfind(b'\xff\xd9', scan) < 0:  # cut short; compressed pixels never hold these
            return None
        turn = orientation if orientation in _TURNS else 1
        return JPEG(path, content, image.size, turn, max_pixels)
