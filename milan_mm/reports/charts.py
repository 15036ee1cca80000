# SPDX-License-Identifier: Apache-2.0
"""Charts, drawn by matplotlib in one style: into a page as SVG, or into a file.

On a page each panel is an SVG of its own, so that panels stand side by side on a wide screen and
below each other on a phone, where their text is still about 12 pixels high.
"""
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import matplotlib
import numpy as np
from cycler import cycler
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ..checkpoints.io import write_atomically
from ..errors import MilanError
from .theme import LIGHT, SERIES, themed

_STYLE: Any = {
    'font.size': 12, 'axes.titlesize': 12, 'axes.titlelocation': 'left', 'axes.labelsize': 12,
    'axes.titleweight': 'bold', 'text.color': LIGHT['ink'], 'axes.titlecolor': LIGHT['ink'],
    'text.parse_math': False,  # a $ in somebody's file name is a $
    'axes.labelcolor': LIGHT['soft'], 'xtick.labelcolor': LIGHT['soft'],
    'ytick.labelcolor': LIGHT['soft'], 'axes.edgecolor': LIGHT['line'],
    'grid.color': LIGHT['grid'], 'axes.grid': True, 'axes.grid.axis': 'y', 'axes.axisbelow': True,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.spines.left': False,
    'xtick.major.size': 0, 'ytick.major.size': 0, 'lines.linewidth': 2, 'lines.markersize': 4,
    'axes.prop_cycle': cycler(color=[LIGHT[name] for name in SERIES]),
    'axes.facecolor': 'none', 'legend.frameon': False, 'legend.fontsize': 11,
    'figure.facecolor': 'none', 'svg.fonttype': 'none', 'svg.hashsalt': 'milan_mm'}
_DASHES = dict(second='--', random=':')


class Panel(NamedTuple):
    """A chart with one pair of axes.

    Attributes:
        title: above it.
        draw: draws on the axes; what it gives a label is in the legend.
        summary: what it says, for those who do not see it.
        note: below the title, on pages.
        size: width and height in inches; a page scales it to the room there is.
    """
    title: str
    draw: Callable[[Axes], None]
    summary: str
    note: str = ''
    size: tuple[float, float] = (5.0, 2.9)


class Series(NamedTuple):
    """A curve: its name in the legend, the name of its colour, and its points."""
    label: str
    key: str
    steps: Sequence[float] | np.ndarray
    values: Sequence[float] | np.ndarray


class Bar(NamedTuple):
    """A bar of a chart.

    Attributes:
        key: name of its colour.
        label: what it is of.
        value: its length.
        deviation: standard deviation, said beside it; None if there is none.
        interval: ends of its 95 % interval, drawn as whiskers; None draws the deviation.
    """
    key: str
    label: str
    value: float
    deviation: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def whiskers(self) -> tuple[float, float] | None:
        """Ends of what is drawn over it."""
        if self.interval is not None or self.deviation is None:
            return self.interval
        return self.value - self.deviation, self.value + self.deviation

    @property
    def text(self) -> str:
        """What stands beside it."""
        return f'{self.value:.1f}' + ('' if self.deviation is None else f' ± {self.deviation:.1f}')

    @property
    def highest(self) -> float:
        """What the axis must reach."""
        return max([self.value, *(self.whiskers or ())])


def bars(title: str, rows: Sequence[Bar], reference: float | None, axis: float) -> Panel:
    """Bars of values in percent, from 0.

    Args:
        title: of the chart.
        rows: from the top.
        reference: value of the line that bars are compared with, or None.
        axis: value at the end of the axis; see :func:`axis_end`.
    """

    def draw(axes: Axes) -> None:
        for y, bar in enumerate(rows):
            axes.barh(y, bar.value, 0.64, color=LIGHT[bar.key])
            if bar.whiskers is not None:
                low, high = max(0.0, bar.whiskers[0]), min(axis, bar.whiskers[1])
                axes.plot([low, high], [y, y], color=LIGHT['ink'], linewidth=1.6)
                for end in (low, high):
                    axes.plot([end, end], [y - .16, y + .16], color=LIGHT['ink'], linewidth=1.6)
            axes.text(1.02, y, bar.text, va='center', transform=axes.get_yaxis_transform(),
                      weight='bold' if bar.key == 'milan' else 'normal')
        if reference is not None:
            axes.axvline(reference, color=LIGHT['chance'], linestyle='--', linewidth=1.6)
        axes.set_yticks(range(len(rows)), [bar.label for bar in rows])
        axes.tick_params(axis='y', labelcolor=LIGHT['ink'])
        axes.set(xlim=(0, axis), ylim=(len(rows) - 0.5, -0.5))
        axes.grid(False, axis='y')
        axes.grid(True, axis='x')
        axes.xaxis.set_major_locator(round_ticks(5))

    return Panel(title, draw, f'{title}: ' + '; '.join(
        f'{bar.label} {bar.text}' + ('' if bar.interval is None else ' (95 % interval '
                                     f'{bar.interval[0]:.1f} to {bar.interval[1]:.1f})')
        for bar in rows), size=(5.0, 0.45 + 0.38 * len(rows)))


def axis_end(values: Sequence[float]) -> float:
    """The next ten above all values, at most 100 as long as they are percentages."""
    return max(10.0, math.ceil(max(values) / 10) * 10)


def curves(title: str, note: str, series: Sequence[Series], percent: bool = False,
           include: Sequence[float] = (), over: str = 'steps') -> Panel | None:
    """Curves over steps, or None if there is nothing to draw.

    Args:
        title, note: above the chart.
        series: points that are not finite are left out.
        percent: values are percentages.
        include: values that the axis shall reach.
        over: what the horizontal axis counts.
    """
    unit = ' %' if percent else ''
    cleaned = []
    for one in series:
        steps, values = (np.asarray(part, float) for part in (one.steps, one.values))
        good = np.isfinite(values) & np.isfinite(steps)
        if good.any():
            cleaned.append(one._replace(steps=steps[good], values=values[good]))
    if not cleaned:
        return None

    def draw(axes: Axes) -> None:
        for one in cleaned:
            axes.plot(one.steps, one.values, _DASHES.get(one.key, '-'), color=LIGHT[one.key],
                      label=f'{one.label} {_number(one.values[-1])}{unit}')
            axes.plot(one.steps[-1], one.values[-1], 'o', color=LIGHT[one.key], markersize=6)
        axes.update_datalim([(cleaned[0].steps[0], value) for value in include])
        axes.autoscale_view()
        axes.xaxis.set_major_locator(round_ticks(4, integer=True))
        axes.yaxis.set_major_locator(round_ticks(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}{unit}'))

    return Panel(title, draw, f'{title}: ' + '; '.join(
        f'{one.label} from {_number(one.values[0])}{unit} to {_number(one.values[-1])}{unit}'
        for one in cleaned) + f' over {max(one.steps[-1] for one in cleaned):.0f} {over}', note)


def svg(panel: Panel) -> Markup:
    """A panel as inline SVG with its legend before it, in the colours of the page's theme.

    Nothing in it has an id, so that two of them cannot collide; what matplotlib defines and uses
    (markers) stands where it is used. No style sheet, no clip paths.
    """
    with _style():
        figure, (axes, ) = _figure([panel], 1, False)
        text = io.StringIO()
        figure.savefig(text, format='svg', metadata=dict.fromkeys(
            ('Creator', 'Date', 'Format', 'Type')))
    tree = ElementTree.fromstring(text.getvalue().encode())
    _make_plain(tree)
    for name in ('width', 'height', 'version'):
        tree.attrib.pop(name, None)
    tree.attrib.update({'class': 'chart', 'role': 'img', 'aria-label': panel.summary})
    legend = Markup().join(Markup('<li>{}{}</li>').format(_swatch(handle), label)
                           for handle, label in zip(*axes.get_legend_handles_labels()))
    return Markup('<ul class="legend">{}</ul>').format(legend) * bool(legend) + Markup(
        ElementTree.tostring(tree, encoding='unicode'))


def save(panels: Sequence[Panel], out: str | Path, columns: int = 3, share: bool = False) -> None:
    """Writes panels side by side into one image.

    Args:
        panels: at least one, of about the same size.
        out: the file; its suffix says which kind.
        columns: in a row.
        share: one scale for all, and one legend.

    Raises:
        MilanError: if Matplotlib cannot write that kind.
    """
    out = Path(out)
    kinds = Figure().canvas.get_supported_filetypes()
    if out.suffix.lstrip('.').lower() not in kinds:
        raise MilanError(f'--out must end in one of {sorted(kinds)}, got {out}')
    with _style():
        figure, drawn = _figure(panels, columns, share)
        for axes, panel in zip(drawn, panels):
            handles, labels = axes.get_legend_handles_labels()
            lines = 0 if share else -(-len(labels) // 2)
            axes.set_title(panel.title, pad=6 + 18 * lines)
            if share:
                axes.label_outer()
            if lines:
                axes.legend(handles, labels, loc='lower left', bbox_to_anchor=(-0.01, 1), ncols=2)
        if share and labels:
            figure.legend(handles, labels, loc='outside upper left', ncols=min(len(labels), 5))
        write_atomically(out, lambda path: figure.savefig(path, dpi=120, facecolor='white'))


def round_ticks(most: int, integer: bool = False) -> MaxNLocator:
    """Ticks at round values, at most so many steps between them."""
    return MaxNLocator(most, steps=[1, 2, 2.5, 5, 10], integer=integer)


@contextmanager
def _style() -> Iterator[None]:
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # A browser has the letters that matplotlib's font lacks.
        warnings.filterwarnings('ignore', message='Glyph .* missing from')
        yield


def _figure(panels: Sequence[Panel], columns: int, share: bool) -> tuple[Figure, list[Axes]]:
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width, height = (max(panel.size[i] for panel in panels) for i in (0, 1))
    figure = Figure(figsize=(width * columns, height * rows), layout='constrained')
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.03)
    grid = list(figure.subplots(rows, columns, sharex=share, sharey=share, squeeze=False).flat)
    for axes, panel in zip(grid, panels):
        panel.draw(axes)
    for axes in grid[len(panels):]:
        axes.set_visible(False)
    return figure, grid[:len(panels)]


def _make_plain(tree: ElementTree.Element) -> None:
    """In place: without namespaces, ids and definitions, and with the theme's colours."""
    for element in tree.iter():
        element.tag = element.tag.rpartition('}')[2]
        element.attrib = {name.rpartition('}')[2]: value for name, value in element.attrib.items()
                          if name != 'clip-path'}
    defined = {element.get('id'): element for element in tree.iter('path')}
    for element in tree.iter():
        for child in list(element):
            if child.tag in ('defs', 'metadata'):
                element.remove(child)
        if element.tag == 'use':
            marker = defined[element.attrib['href'][1:]]
            styles = [one.get('style', '') for one in (element, marker)]
            element.tag, element.attrib = 'path', {
                'd': marker.attrib['d'], 'style': ';'.join(styles),
                'transform': f'translate({element.get("x")} {element.get("y")})'}
    for element in tree.iter():
        element.attrib.pop('id', None)
        if 'style' in element.attrib:
            element.set('style', re.sub(
                '#[0-9a-f]{6}', lambda found: themed(found[0]), element.attrib['style']))


def _swatch(handle: Any) -> Markup:
    """The mark of an entry of the legend: a line as it is drawn, a dot, or a bar's colour."""
    if isinstance(handle, tuple):  # a container of bars or of error bars
        handle = handle[0]
    colour = handle.get_color() if hasattr(handle, 'get_color') else handle.get_facecolor()
    if not isinstance(colour, str):
        colour = to_hex(np.asarray(colour).reshape(-1)[:3].tolist())
    kind = str(handle.get_linestyle()) if isinstance(handle, Line2D) else '-'
    style = {'--': 'dashed', ':': 'dotted', 'None': 'dot'}.get(kind, 'solid')
    return Markup('<i class="{}" style="border-color:{}"></i>').format(style, themed(colour))


def _number(value: float) -> str:
    return f'{value:.3g}' if abs(value) < 100 else f'{value:.0f}'
