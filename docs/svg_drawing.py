# SPDX-License-Identifier: Apache-2.0
"""An SVG in the colours of the reports, for docs/make_concept_drawings.py."""
from pathlib import Path

from PIL import Image

from milan_mm.reports.page import data_uri
from milan_mm.reports.theme import COLOURS

WIDTH = 480  # of a drawing; text of 15 is then 11 pixels high on a phone
STYLE = ''.join(
    f'.{name}{{fill:{light}}}.{name}-line{{stroke:{light};fill:none}}'
    for name, (light, _) in COLOURS.items()) + '@media(prefers-color-scheme:dark){' + ''.join(
    f'.{name}{{fill:{dark}}}.{name}-line{{stroke:{dark};fill:none}}'
    for name, (_, dark) in COLOURS.items()) + '}'


class Drawing:
    """An SVG that is put together from top to bottom.

    Args:
        title: what it shows, for those who do not see it.
        height: in the unit of ``WIDTH``.
    """

    def __init__(self, title: str, height: float) -> None:
        self.title, self.height, self.parts = title, height, []

    def text(self, x: float, y: float, words: str, kind: str = 'ink', anchor: str = 'start',
             size: int = 15, turn: int = 0) -> None:
        turned = f' transform="rotate({turn} {x:g} {y:g})"' if turn else ''
        self.parts.append(f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}" '
                          f'font-size="{size}"{turned}>{words}</text>')

    def image(self, x: float, y: float, width: float, image: Image.Image, photo: bool = False,
              height: float | None = None) -> None:
        height = width if height is None else height
        self.parts.append(
            f'<image x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
            f'style="image-rendering:{"auto" if photo else "pixelated"}" '
            f'preserveAspectRatio="none" href="{data_uri(image, photo)}"/>')
        if min(width, height) > 50:  # dark panels on dark ground need an edge
            self.box(x, y, width, height, 'line-line')

    def box(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
                          f'class="{kind}"/>')

    def line(self, *points: tuple[float, float], kind: str = 'soft-line', arrow: bool = False,
             dashed: bool = False) -> None:
        path = ' L'.join(f'{x:g} {y:g}' for x, y in points)
        extra = ' marker-end="url(#tip)"' if arrow else ''
        extra += ' stroke-dasharray="5 4"' if dashed else ''
        self.parts.append(f'<path d="M{path}" class="{kind}" stroke-width="1.6"{extra}/>')

    def save(self, path: Path) -> None:
        tip = ('<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" '
               'markerHeight="6" orient="auto"><path d="M0 0L8 4L0 8z" class="soft"/>'
               '</marker></defs>')
        path.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height:g}" '
            f'width="{WIDTH * 1.25:g}" height="{self.height * 1.25:g}" role="img" '
            f'font-family="system-ui,sans-serif"><title>{self.title}</title>'
            f'<style>{STYLE}</style>{tip}'
            f'<rect width="{WIDTH}" height="{self.height:g}" rx="6" class="ground"/>'
            + '\n'.join(self.parts) + '</svg>\n', encoding='utf-8')
