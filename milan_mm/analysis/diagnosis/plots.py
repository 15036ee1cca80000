# SPDX-License-Identifier: Apache-2.0
"""The panels of each measure of :func:`milan_mm.analysis.diagnosis.diagnose.diagnose`."""
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ...reports.charts import Panel
from ...reports.theme import LIGHT

_OUT = 1.08  # where a tower's output stands on an axis on which its last block stands at 1
_NEVER, _ALWAYS = -0.13, 1.13  # where the numbers of dead units stand
_MOST_NUMBERS = 14  # rows or columns of a heat map that gets its values written


def panels_of(result: dict[str, Any]) -> dict[str, list[Panel]]:
    """The panels by name, of what was measured; nothing of what was left out."""
    drawn: dict[str, Callable[[dict[str, Any]], list[Panel]]] = dict(
        cka=cka_panels, attention_distance=distance_panels, effective_rank=rank_panels,
        collapse=collapse_panels, units=unit_panels, deciles=decile_panels)
    needs = dict(effective_rank='spread', collapse='spread')
    return {name: panels(result) for name, panels in drawn.items()
            if result[needs.get(name, name)]}


def cka_panels(result: dict[str, Any]) -> list[Panel]:
    """Two heat maps, of the image's token and of patches."""
    cka = result['cka']
    rows, columns = [*cka['rows'], 'random weights'], cka['columns']

    def draw(axes: Axes, kind: str) -> None:
        values = np.array([*cka[kind], cka['random'][kind]], float)
        axes.imshow(values, vmin=0, vmax=1, cmap='viridis', aspect='auto', interpolation='none')
        axes.set_xticks(range(len(columns)), columns, rotation=60, ha='right',
                        rotation_mode='anchor')
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(False)
        axes.axhline(len(rows) - 1.5, color=LIGHT['ground'], linewidth=4)
        for row, column in np.ndindex(values.shape):
            value = values[row, column]
            if max(values.shape) <= _MOST_NUMBERS and np.isfinite(value):
                axes.text(column, row, f'{value:.2f}'.replace('0.', '.', 1), ha='center',
                          va='center', fontsize=11, color='black' if value > 0.6 else 'white')

    return [Panel(title, partial(draw, kind=kind),
                  f'CKA of {len(rows)} by {len(columns)} layers, {title}',
                  f'rows: student, columns: {result["teacher"]}',
                  (5.2, max(0.27 * len(rows), 1.6) + 0.9))
            for kind, title in (('cls', 'CLS token'), ('patches', 'patches'))]


def distance_panels(result: dict[str, Any]) -> list[Panel]:
    """A dot a head, a line through the means, and where even attention would be."""
    measured = result['attention_distance']

    def draw(axes: Axes) -> None:
        for layer, heads in enumerate(measured['pixels'], 1):
            axes.plot([layer] * len(heads), heads, 'o', color=LIGHT['milan'], alpha=0.55,
                      markersize=5, label='a head' if layer == 1 else None)
        means = [float(np.mean(heads)) for heads in measured['pixels']]
        axes.plot(range(1, len(means) + 1), means, color=LIGHT['milan'], label='mean of heads')
        axes.axhline(measured['even'], color=LIGHT['random'], linestyle='--',
                     label='even attention')
        axes.set(xlabel='block', ylim=(0, 1.08 * axes.get_ylim()[1]))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return [Panel('Attention distance, pixels', draw, 'Mean distance of each head, by block')]


def rank_panels(result: dict[str, Any]) -> list[Panel]:
    """Effective rank over depth, of CLS tokens and of patches."""

    def draw(axes: Axes, kind: str) -> None:
        _over_depth(axes, result['spread'], kind, 'effective_rank')
        axes.set_ylim(0, 1.08 * axes.get_ylim()[1])

    return [Panel(f'Effective rank, {title}', partial(draw, kind=kind),
                  f'Effective rank of {title} over depth')
            for kind, title in (('cls', 'CLS token'), ('patches', 'patches'))]


def collapse_panels(result: dict[str, Any]) -> list[Panel]:
    """Mean cosine and spread over depth."""

    def draw(axes: Axes, key: str) -> None:
        _over_depth(axes, result['spread'], 'cls', key)
        _over_depth(axes, result['spread'], 'patches', key, ':')
        low, high = axes.get_ylim()
        axes.set_ylim(min(0, low), max(1.05, high))

    return [Panel(title, partial(draw, key=key), f'{title}, over depth')
            for key, title in (('mean_cosine', 'Mean cosine of two images'),
                               ('std', 'Spread: 1 is even, 0 a point'))]


def unit_panels(result: dict[str, Any]) -> list[Panel]:
    """The share of tokens units are on for, as bands of units, and how many are dead."""
    units = result['units']

    def draw(axes: Axes) -> None:
        table = np.array(units['quantiles'])
        blocks = np.arange(1, len(table) + 1)
        axes.vlines(blocks, table[:, 0], table[:, -1], color=LIGHT['random'], linewidth=1.2,
                    label='least to most')
        axes.vlines(blocks, table[:, 1], table[:, -2], color=LIGHT['second'], linewidth=7,
                    label='90 % of units')
        axes.vlines(blocks, table[:, 2], table[:, -3], color=LIGHT['milan'], linewidth=7,
                    label='half of the units')
        axes.plot(blocks, table[:, 3], 'o', color=LIGHT['ground'], markersize=4)
        for block, never, always in zip(blocks, units['never'], units['always']):
            for at, dead in ((_NEVER, never), (_ALWAYS, always)):
                axes.text(float(block), at, str(dead), ha='center', va='center', fontsize=10,
                          color=LIGHT['chance' if dead else 'soft'])
        axes.set(xlabel='block', ylim=(-0.2, 1.2), xlim=(0.4, len(table) + 0.6))
        axes.set_yticks([_NEVER, 0, 0.25, 0.5, 0.75, 1, _ALWAYS],
                        ['never on', '0', '.25', '.5', '.75', '1', 'always on'])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return [Panel('Share of tokens that units are on for', draw,
                  'Shares by block, and how many units are never or always on',
                  'above and below: units that always and never are', (5.0, 3.4))]


def decile_panels(result: dict[str, Any]) -> list[Panel]:
    """Loss by importance, and how much of each tenth was shown."""
    deciles = result['deciles']
    tenths = np.arange(1, len(deciles['importance']) + 1)
    unit = '2 − 2 cos' if deciles['measure'] == 'cos' else deciles['measure']

    def losses(axes: Axes) -> None:
        for name, colour in (('masked', 'mae'), ('seen', 'second')):
            mean, spread = (np.array([np.nan if value is None else value
                                      for value in deciles[key]])
                            for key in (name, f'{name}_spread'))
            axes.errorbar(tenths, mean, np.nan_to_num(spread), color=LIGHT[colour],
                          label=f'{name} patches', marker='o', elinewidth=1.4)
        axes.set(ylim=(0, None), xticks=tenths)

    def shares(axes: Axes) -> None:
        axes.bar(tenths - 0.2, deciles['share_seen'], 0.4, color=LIGHT['second'],
                 label='of these patches, seen')
        axes.bar(tenths + 0.2, np.array(deciles['importance']) / len(tenths), 0.4,
                 color=LIGHT['teacher'], label='of all importance, on these patches')
        axes.set(ylim=(0, 1), xticks=tenths)

    note = 'by tenth of patches, 1 the least important'
    return [Panel(f'Loss, {unit}', losses, f'Loss {note}', note),
            Panel('Shares', shares, f'Shares {note}', note)]


def _over_depth(axes: Axes, spread: dict[str, Any], kind: str, key: str, style: str = '-') -> None:
    """A line a tower through its layers; outputs are hollow."""
    for tower, rows in spread.items():
        depth, at_output = depth_of(rows['layers'])
        values = [row[key] for row in rows[kind]]
        colour = LIGHT['milan' if tower == 'student' else 'teacher']
        axes.plot(depth, values, style, color=colour, marker='o', markersize=5,
                  label=f'{tower}, {"CLS" if kind == "cls" else "patches"}')
        axes.plot([x for x, out in zip(depth, at_output) if out],
                  [y for y, out in zip(values, at_output) if out], 'o', color=LIGHT['ground'],
                  markersize=5, markeredgecolor=colour)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1, _OUT], ['0', '¼', '½', '¾', '1', '  out'])
    axes.set_xlabel('depth of the block')


def depth_of(layers: list[str]) -> tuple[list[float], list[bool]]:
    """Where layers stand: block i of L at i / L, the output beyond; and which are outputs."""
    blocks = [name.startswith('block ') for name in layers]
    count = sum(blocks) or 1
    return ([(i + 1) / count if block else _OUT for i, block in enumerate(blocks)],
            [not block for block in blocks])
