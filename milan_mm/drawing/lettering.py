# SPDX-License-Identifier: Apache-2.0
"""Text on images."""
import functools
from pathlib import Path

import matplotlib
from PIL import ImageFont

# DejaVu Sans comes with matplotlib; Pillow's own font lacks most letters.
_FONTS = Path(matplotlib.get_data_path()) / 'fonts/ttf'


@functools.cache
def font_of(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, ``size`` pixels high."""
    return ImageFont.truetype(str(_FONTS / f'DejaVuSans{"-Bold" if bold else ""}.ttf'), size)


def fitted(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text in one line, cut with an ellipsis where it is longer than ``width`` pixels."""
    text = ' '.join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + '…') > width:
        text = text[:-1]
    return text.rstrip() + '…'
