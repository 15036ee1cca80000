# SPDX-License-Identifier: Apache-2.0
"""Rows of panels on one image, to be put into a paper or sent to somebody."""
from collections.abc import Sequence

from matplotlib import colormaps
from PIL import Image, ImageDraw

from ...drawing import panels
from ...drawing.lettering import fitted, font_of
from .tiles import TileRow

_PAPER, _INK, _SOFT = (255, 255, 255), (29, 33, 38), (90, 98, 108)
_MARGIN, _GAP, _TITLE, _CAPTION = 20, 8, 30, 22


def draw_sheet(name: str, facts: str, rows: Sequence[TileRow], highest: float) -> Image.Image:
    """Everything about one image.

    Args:
        name: name of the image.
        facts: a line below it.
        rows: rows of panels, all of the same size.
        highest: error that has the brightest colour; 0 if no error is shown.
    """
    width, height = rows[0].tiles[0].image.size
    columns = max(len(row.tiles) for row in rows)
    total = 2 * _MARGIN + columns * width + (columns - 1) * _GAP
    head, foot = 58, 34
    sheet = Image.new('RGB', (total, 2 * _MARGIN + head + foot + len(rows) * (
        _TITLE + height + _CAPTION)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    room = total - 2 * _MARGIN
    draw.text((_MARGIN, _MARGIN), fitted(name, font_of(20, True), room), _INK, font_of(20, True))
    draw.text((_MARGIN, _MARGIN + 29), fitted(facts, font_of(13), room), _SOFT, font_of(13))
    top = _MARGIN + head
    for row in rows:
        draw.text((_MARGIN, top + 8), fitted(row.title, font_of(14, True), room), _INK,
                  font_of(14, True))
        for column, tile in enumerate(row.tiles):
            left = _MARGIN + column * (width + _GAP)
            sheet.paste(tile.image, (left, top + _TITLE))
            draw.text((left, top + _TITLE + height + 3),
                      fitted(tile.caption, font_of(12), width), _SOFT, font_of(12))
        top += _TITLE + height + _CAPTION
    scales = [(panels.IMPORTANCE_COLOURS,
               'importance: none to the most of an image; rollout: its least to its most')]
    if highest:
        scales.append((panels.ERROR_COLOURS,
                       f'error: 0 to {highest:.2f} and above; dots: patches seen'))
    _draw_scales(sheet, (_MARGIN, top + 14), scales)
    return sheet


def _draw_scales(sheet: Image.Image, at: tuple[int, int], scales: list[tuple[str, str]]) -> None:
    """The colour scales side by side, each with what it means."""
    draw = ImageDraw.Draw(sheet)
    left, top = at
    for name, text in scales:
        for step in range(80):
            colour = tuple(round(255 * part) for part in colormaps[name](step / 79)[:3])
            draw.line((left + step, top, left + step, top + 11), colour)
        draw.text((left + 88, top - 2), text, _SOFT, font_of(12))
        left += round(88 + font_of(12).getlength(text) + 28)
