# SPDX-License-Identifier: Apache-2.0
"""The style of charts and pages, and what comes out of matplotlib's SVG."""
import itertools
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers_pages import Elements
from matplotlib.colors import to_rgb
from PIL import Image

from milan_mm.errors import MilanError
from milan_mm.reports.charts import Bar, Panel, bars, curves, save, svg
from milan_mm.reports.charts import Series as S
from milan_mm.reports.theme import COLOURS, LIGHT

EVIL = '<script>$x^2$ </script>&"'


def contrast(one, other):
    """Of WCAG 2.1."""
    light, dark = sorted((np.dot(
        [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055)**2.4 for c in to_rgb(colour)],
        [0.2126, 0.7152, 0.0722]) for colour in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize('theme', [0, 1], ids=['light', 'dark'])
def test_text_and_marks_can_be_told_from_the_ground(theme):
    colour = {name: pair[theme] for name, pair in COLOURS.items()}
    for name in ('ink', 'soft', 'milan', 'mae', 'chance', 'hit'):  # text is written in these
        assert contrast(colour[name], colour['ground']) >= 4.5, name
    assert contrast(colour['ink'], colour['code']) >= 4.5
    for name in ('second', 'random', 'teacher'):
        assert contrast(colour[name], colour['ground']) >= 3, name
    assert len(set(colour.values())) == len(colour)  # or one variable would stand for another


def panels():
    yield bars(EVIL, [Bar('milan', EVIL, 5., 1.), Bar('mae', 'MAE', 3.)], 2., 10.)
    yield curves(EVIL, '', [S(EVIL, 'milan', [0, 1], [1, 2]), S('b', 'second', [0, 1], [3, 1])])

    def marks(axes):
        axes.plot([0, 1], [1, 2], 'o', color=LIGHT['teacher'], label=EVIL)
        axes.imshow(np.eye(3), interpolation='none')
        axes.text(0, 0, EVIL)
    yield Panel('marks', marks, EVIL)


def test_svg_is_plain_themed_and_escaped():
    for panel in panels():
        text = svg(panel)
        assert text == svg(panel)
        page = Elements(text)
        tags = {tag for tag, _ in page.elements}
        assert tags <= {'ul', 'li', 'i', 'svg', 'g', 'path', 'text', 'image'}, tags
        assert not page.attributes('id', 'clip-path', 'xlink:href') and '://' not in text
        assert all(uri.startswith('data:image/png;') for uri in page.attributes('href'))
        assert EVIL in page.text
        drawn = ElementTree.fromstring(text[text.index('<svg'):])
        assert drawn.get('viewBox') and 'width' not in drawn.attrib
        styles = ' '.join(page.attributes('style'))
        assert 'var(--' in styles and not [light for light in LIGHT.values() if light in styles]


def test_markers_stand_where_they_were():
    def draw(axes):
        axes.plot([0, 1, 2], [0, 0, 0], 'o', color=LIGHT['hit'])
        axes.set_axis_off()
    page = Elements(svg(Panel('', draw, 'dots')))
    at = [float(one.split('(')[1].split()[0]) for one in page.attributes('transform')]
    assert len(at) == 3 and at[1] - at[0] == pytest.approx(at[2] - at[1])


def test_the_legend_shows_how_a_line_is_drawn():
    def draw(axes):
        for style, key in zip(('-', '--', ':', 'o'), ('milan', 'mae', 'random', 'hit')):
            axes.plot([0, 1], [0, 1], style, color=LIGHT[key], label=key)
        axes.bar([0, 1], [1, 1], color=LIGHT['teacher'], label='bar')
    page = Elements(svg(Panel('', draw, 'lines')))
    assert [tuple(attrs.values()) for tag, attrs in page.elements if tag == 'i'] == [
        ('solid', 'border-color:var(--milan)'), ('dashed', 'border-color:var(--mae)'),
        ('dotted', 'border-color:var(--random)'), ('dot', 'border-color:var(--hit)'),
        ('solid', 'border-color:var(--teacher)')]


@pytest.mark.parametrize('share', [True, False])
def test_panels_beside_each_other_in_a_file(tmp_path, share):
    many = list(itertools.islice(itertools.cycle(list(panels())[:2]), 4))
    save(many, tmp_path / 'out.png', columns=3, share=share)
    with Image.open(tmp_path / 'out.png') as image:
        assert image.size == (3 * 600, 2 * 348) and image.getpixel((0, 0))[:3] == (255, ) * 3
    with pytest.raises(MilanError, match='must end in one of .*got .*out.xyz'):
        save(many, tmp_path / 'out.xyz')
