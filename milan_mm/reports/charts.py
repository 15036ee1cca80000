# SPDX-License-Identifier: Apache-2.0
"""From numbers to the geometry of bars and curves; the page's template draws them."""
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 340, 200  # of a curve chart, in its own units; text is 11 of them
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 8, 24


class Tick(NamedTuple):
    """A mark on an axis: where (in units or percent) and what it says."""
    at: float
    label: str


class Bar(NamedTuple):
    """A bar; lengths in percent of the axis.

    Attributes:
        key: names the colour.
        label: what it is the bar of.
        text: the value, and its standard deviation where there is one.
        length: of the bar.
        whisker: begin and length of the error bar, or None.
    """
    key: str
    label: str
    text: str
    length: float
    whisker: tuple[float, float] | None


class Bars(NamedTuple):
    """A chart of bars that start at 0.

    Attributes:
        title: of the chart.
        bars: from top to bottom.
        ticks: of the axis; positions in percent.
        reference: position of the line that bars are compared with, in percent, or None.
    """
    title: str
    bars: list[Bar]
    ticks: list[Tick]
    reference: float | None


class Series(NamedTuple):
    """A curve: its name in the legend, the key of its colour, and its points."""
    label: str
    key: str
    steps: Sequence[float]
    values: Sequence[float]


class Line(NamedTuple):
    """A drawn curve.

    Attributes:
        label, key: see :class:`Series`.
        path: of SVG.
        end: x and y of the last point.
        last: its value, as text.
    """
    label: str
    key: str
    path: str
    end: tuple[float, float]
    last: str


class Curves(NamedTuple):
    """A chart of curves over steps, in units of WIDTH x HEIGHT."""
    title: str
    note: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    box: tuple[float, float, float, float]
    summary: str


def bar_chart(title: str, rows: Sequence[tuple[str, str, float, float | None]],
              reference: float | None, axis: float) -> Bars:
    """Bars of values in percent.

    Args:
        title: of the chart.
        rows: (key, label, value, standard deviation or None) of each bar.
        reference: value of the line that bars are compared with, or None.
        axis: value at the end of the axis; see :func:`axis_end`.
    """
    bars = []
    for key, label, value, deviation in rows:
        whisker, text = None, f'{value:.1f}'
        if deviation is not None:
            low, high = max(0.0, value - deviation), min(axis, value + deviation)
            whisker = (round(100 * low / axis, 2), round(100 * (high - low) / axis, 2))
            text = f'{value:.1f} ± {deviation:.1f}'
        bars.append(Bar(key, label, text, round(100 * value / axis, 2), whisker))
    ticks = [Tick(round(100 * value / axis, 2), f'{value:g}') for value in nice_ticks(0, axis, 5)]
    return Bars(title, bars, ticks, None if reference is None else round(
        100 * reference / axis, 2))


def axis_end(values: Sequence[float]) -> float:
    """The next ten above all values, at most 100 as long as they are percentages."""
    return max(10.0, math.ceil(max(values) / 10) * 10)


def curve_chart(title: str, note: str, series: Sequence[Series], percent: bool = False,
                include: Sequence[float] = ()) -> Curves | None:
    """Curves over steps, or None if there is nothing to draw.

    Args:
        title, note: above the chart.
        series: points that are not finite are left out.
        percent: values are percentages.
        include: values that the axis shall reach.
    """
    cleaned = []
    for one in series:
        steps, values = (np.asarray(part, float) for part in (one.steps, one.values))
        good = np.isfinite(values) & np.isfinite(steps)
        if good.any():
            cleaned.append(one._replace(steps=steps[good], values=values[good]))
    if not cleaned:
        return None
    x_max = max(one.steps.max() for one in cleaned)
    x_min = min(0.0, *(one.steps.min() for one in cleaned), x_max - 1)
    y_all = np.concatenate([one.values for one in cleaned] + [np.asarray(include, float)])
    y_ticks = nice_ticks(float(y_all.min()), float(y_all.max()), 5, outside=True)
    unit = ' %' if percent else ''

    def at(step: float, value: float) -> tuple[float, float]:
        x = _LEFT + (step - x_min) / (x_max - x_min) * (WIDTH - _LEFT - _RIGHT)
        y = _TOP + (y_ticks[-1] - value) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - _TOP - _BOTTOM)
        return round(x, 1), round(y, 1)

    lines = []
    for one in cleaned:
        points = [at(*point) for point in zip(one.steps, one.values)]
        path = 'M' + 'L'.join(f'{x},{y}' for x, y in points)
        lines.append(Line(one.label, one.key, path, points[-1], _number(one.values[-1]) + unit))
    summary = f'{title}: ' + '; '.join(
        f'{one.label} from {_number(one.values[0])}{unit} to {_number(one.values[-1])}{unit}'
        for one in cleaned) + f' over {x_max:.0f} steps'
    return Curves(
        title, note, lines,
        [Tick(at(x, y_ticks[0])[0], f'{x:g}') for x in nice_ticks(x_min, x_max, 4)],
        [Tick(at(x_min, y)[1], f'{y:g}{unit}') for y in y_ticks],
        (_LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM), summary)


def nice_ticks(low: float, high: float, about: int, outside: bool = False) -> list[float]:
    """Round values from ``low`` to ``high``, about so many.

    Args:
        low, high: the range.
        about: how many.
        outside: the first and the last lie at or beyond the range, not within it.
    """
    span = high - low or abs(high) or 1.0
    magnitude = 10.0**math.floor(math.log10(span / about))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude * about >= span)
    first, last = low / step, high / step
    first, last = ((math.floor(first + 1e-9), math.ceil(last - 1e-9)) if outside else
                   (math.ceil(first - 1e-9), math.floor(last + 1e-9)))
    if outside and first == last:
        last += 1
    digits = max(0, 2 - math.floor(math.log10(step)))
    return [round(i * step, digits) for i in range(first, last + 1)]


def _number(value: float) -> str:
    return f'{value:.3g}' if abs(value) < 100 else f'{value:.0f}'
