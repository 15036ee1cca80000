# SPDX-License-Identifier: Apache-2.0
"""One figure for each measure of :func:`milan_mm.analysis.diagnosis.diagnose.diagnose`."""
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_COLOURS = dict(student='#0a6c8f', teacher='#7b5ea7')
_SEEN, _MASKED, _FAINT = '#5fb0c9', '#c26a12', '#98a0a8'
_OUT = 1.08  # where a tower's output stands on an axis on which its last block stands at 1
_NEVER, _ALWAYS = -0.11, 1.11  # where the numbers of dead units stand
_MOST_NUMBERS = 400  # cells that get their value written


def draw(result: dict[str, Any]) -> dict[str, bytes]:
    """PNG files by name, of what was measured; nothing of what was left out."""
    figures: dict[str, Callable[[dict[str, Any]], Figure]] = dict(
        cka=plot_cka, attention_distance=plot_distance, effective_rank=plot_rank,
        collapse=plot_collapse, units=plot_units, deciles=plot_deciles)
    needs = dict(effective_rank='spread', collapse='spread')
    images = {}
    for name, plot in figures.items():
        if result[needs.get(name, name)]:
            buffer = io.BytesIO()
            plot(result).savefig(buffer, format='png', dpi=130)
            images[name] = buffer.getvalue()
    return images


def plot_cka(result: dict[str, Any]) -> Figure:
    """Two heat maps, of the image's token and of patches."""
    cka = result['cka']
    rows, columns = len(cka['rows']) + 1, len(cka['columns'])
    cell = 0.42 if max(rows, columns) > 8 else 0.52
    figure = Figure(figsize=(2 * max(columns * cell, 2.4) + 3.4, max(rows * cell, 2.2) + 1.6),
                    layout='constrained')
    panels = figure.subplots(1, 2, sharey=True)
    for axes, kind, title in zip(panels, ('cls', 'patches'), ('CLS token', 'patches')):
        values = np.array([*cka[kind], cka['random'][kind]], float)
        image = axes.imshow(values, vmin=0, vmax=1, cmap='viridis', aspect='equal')
        axes.set(title=title, xlabel=result['teacher'])
        axes.set_xticks(range(columns), cka['columns'], rotation=60, ha='right',
                        rotation_mode='anchor')
        axes.set_yticks(range(rows), [*cka['rows'], 'random weights'])
        axes.axhline(rows - 1.5, color='white', linewidth=4)
        if values.size <= _MOST_NUMBERS:
            for row, column in np.ndindex(values.shape):
                value = values[row, column]
                if not np.isfinite(value):
                    continue
                axes.text(column, row, f'{value:.2f}'.replace('0.', '.', 1), ha='center',
                          va='center', fontsize=8, color='black' if value > 0.6 else 'white')
    panels[0].set_ylabel('student')
    figure.colorbar(image, ax=panels, label='CKA', shrink=0.9)
    return figure


def plot_distance(result: dict[str, Any]) -> Figure:
    """A dot a head, a line through the means, and where even attention would be."""
    measured = result['attention_distance']
    figure, axes = _one_panel()
    for layer, heads in enumerate(measured['pixels'], 1):
        axes.scatter([layer] * len(heads), heads, s=22, color=_COLOURS['student'], alpha=0.55,
                     linewidths=0, label='a head' if layer == 1 else None)
    means = [float(np.mean(heads)) for heads in measured['pixels']]
    axes.plot(range(1, len(means) + 1), means, color=_COLOURS['student'], label='mean of heads')
    axes.axhline(measured['even'], color=_FAINT, linestyle='--', label='even attention')
    axes.set(xlabel='block', ylabel='distance, pixels', ylim=(0, 1.08 * axes.get_ylim()[1]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc='lower right')
    return figure


def plot_rank(result: dict[str, Any]) -> Figure:
    """Effective rank over depth, of CLS tokens and of patches."""
    figure, panels = _two_panels()
    for axes, kind, title in zip(panels, ('cls', 'patches'), ('CLS token', 'patches')):
        _over_depth(axes, result['spread'], kind, 'effective_rank')
        axes.set(title=title)
    panels[0].set(ylabel='effective rank', ylim=(0, 1.08 * panels[0].get_ylim()[1]))
    panels[0].legend(loc='lower left')
    return figure


def plot_collapse(result: dict[str, Any]) -> Figure:
    """Mean cosine and spread over depth."""
    figure, panels = _two_panels(share=False)
    for axes, key, title in zip(panels, ('mean_cosine', 'std'),
                                ('mean cosine of two images', 'spread (1 is even, 0 a point)')):
        _over_depth(axes, result['spread'], 'cls', key)
        _over_depth(axes, result['spread'], 'patches', key, ':')
        axes.set(title=title)
        low, high = axes.get_ylim()
        axes.set_ylim(min(0, low), max(1, high))
    panels[0].legend()
    return figure


def plot_units(result: dict[str, Any]) -> Figure:
    """The share of tokens units are on for, as bands of units, and how many are dead."""
    units = result['units']
    figure, axes = _one_panel()
    table = np.array(units['quantiles'])
    blocks = np.arange(1, len(table) + 1)
    axes.vlines(blocks, table[:, 0], table[:, -1], color=_FAINT, linewidth=1.2,
                label='least to most')
    axes.vlines(blocks, table[:, 1], table[:, -2], color=_SEEN, linewidth=6, label='90 % of units')
    axes.vlines(blocks, table[:, 2], table[:, -3], color=_COLOURS['student'], linewidth=6,
                label='half of the units')
    axes.scatter(blocks, table[:, 3], color='white', s=14, zorder=3)
    for block, never, always in zip(blocks, units['never'], units['always']):
        for at, dead in ((_NEVER, never), (_ALWAYS, always)):
            axes.text(block, at, str(dead), ha='center', va='center', fontsize=9,
                      color='#b3261e' if dead else _FAINT,
                      bbox=dict(facecolor='white', edgecolor='none', pad=2))
    axes.set(xlabel='block', ylabel='share of tokens a unit is on for', ylim=(-0.2, 1.2),
             xlim=(0.4, len(table) + 0.6))
    axes.set_yticks([_NEVER, 0, 0.25, 0.5, 0.75, 1, _ALWAYS],
                    ['units never on', '0', '.25', '.5', '.75', '1', 'units always on'])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc='center left', bbox_to_anchor=(1.01, 0.5))
    return figure


def plot_deciles(result: dict[str, Any]) -> Figure:
    """Loss by importance, and how much of each tenth was shown."""
    deciles = result['deciles']
    figure, panels = _two_panels(share=False)
    tenths = np.arange(1, len(deciles['importance']) + 1)
    for name, label, colour in (('masked', 'masked patches', _MASKED),
                                ('seen', 'seen patches', _SEEN)):
        mean, spread = (np.array([np.nan if value is None else value for value in deciles[key]])
                        for key in (name, f'{name}_spread'))
        panels[0].errorbar(tenths, mean, np.nan_to_num(spread), color=colour, label=label,
                           marker='o', markersize=4, capsize=2)
    unit = '2 − 2 cos' if deciles['measure'] == 'cos' else deciles['measure']
    panels[0].set(title=f'loss, {unit}', ylim=(0, None))
    share = np.array(deciles['importance']) / len(tenths)
    panels[1].bar(tenths - 0.2, deciles['share_seen'], 0.4, color=_SEEN,
                  label='of these patches, seen')
    panels[1].bar(tenths + 0.2, share, 0.4, color=_COLOURS['teacher'],
                  label='of all importance, on these patches')
    panels[1].set(title='shares', ylim=(0, 1))
    for axes in panels:
        axes.set_xlabel('tenth of patches, 1 the least important')
        axes.set_xticks(tenths)
        axes.legend()
    return figure


def _over_depth(axes: Axes, spread: dict[str, Any], kind: str, key: str, style: str = '-') -> None:
    """A line a tower over its relative depth; its output apart, with a hollow mark."""
    for tower, rows in spread.items():
        depth, at_output = depth_of(rows['layers'])
        values = [row[key] for row in rows[kind]]
        label = f'{tower}, CLS' if kind == 'cls' else f'{tower}, patches'
        axes.plot(depth, values, style, color=_COLOURS[tower], marker='o', markersize=4,
                  label=label if axes.get_title() == '' else None)
        axes.plot([x for x, out in zip(depth, at_output) if out],
                  [y for y, out in zip(values, at_output) if out], 'o', color='white', markersize=4,
                  markeredgecolor=_COLOURS[tower])
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1, _OUT], ['0', '¼', '½', '¾', '1', ' out'])
    axes.set_xlabel('depth of the block')


def depth_of(layers: list[str]) -> tuple[list[float], list[bool]]:
    """Where layers stand: block i of L at i / L, the output beyond; and which are outputs."""
    blocks = [name.startswith('block ') for name in layers]
    count = sum(blocks) or 1
    return ([(i + 1) / count if block else _OUT for i, block in enumerate(blocks)],
            [not block for block in blocks])


def _one_panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.6, 3.8), layout='constrained')
    axes = figure.subplots()
    axes.grid(alpha=0.3, axis='y')
    return figure, axes


def _two_panels(share: bool = True) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(9.6, 3.8), layout='constrained')
    panels = figure.subplots(1, 2, sharey=share)
    for axes in panels:
        axes.grid(alpha=0.3, axis='y')
    return figure, panels
