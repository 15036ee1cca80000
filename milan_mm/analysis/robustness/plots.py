# SPDX-License-Identifier: Apache-2.0
"""Accuracy against severity, and a sheet that shows what the corruptions look like."""
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ...checkpoints import write_atomically
from ...keyed_random import sample_key
from .corruptions import CORRUPTIONS, SEVERITIES, corrupt


def plot_severity(result: dict[str, Any], out: str | Path) -> None:
    """A panel with the mean over corruptions, and one for each; a line a classifier.

    Severity 0 is the accuracy on clean images, where that was measured; the dotted line is
    chance.
    """
    models = result['models']
    first = next(iter(models.values()))
    panels = ['mean', *first['accuracy']]
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.4 * rows + 0.5), layout='constrained')
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, panel in zip(grid.flat, panels):
        for number, (name, model) in enumerate(models.items()):
            values = model['by_severity'] if panel == 'mean' else model['accuracy'][panel]
            x = model['severities']
            if 'clean' in model:
                x, values = [0, *x], [model['clean'], *values]
            axes.plot(x, values, color=f'C{number}', marker='o', markersize=3, label=name)
        axes.axhline(result['chance'], color='grey', linestyle=':', linewidth=1)
        axes.set_title(f'mean of {len(panels) - 1}' if panel == 'mean' else panel.replace('_', ' '),
                       fontsize=10, fontweight='bold' if panel == 'mean' else 'normal')
        axes.grid(alpha=0.3)
        axes.set_xticks(x)
    for axes in grid.flat[len(panels):]:
        axes.set_visible(False)
    grid[0, 0].set_ylim(bottom=0)
    figure.supxlabel('severity', fontsize=10)
    figure.supylabel('top-1, %', fontsize=10)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside upper center', ncols=len(labels), frameon=False)
    write_atomically(out, lambda path: figure.savefig(path, dpi=110))


def plot_bars(result: dict[str, Any], out: str | Path) -> None:
    """Of a suite without severities: the accuracy of each classifier, on clean images too."""
    models = result['models']
    kinds = [kind for kind in ('clean', 'top1') if kind in next(iter(models.values()))]
    figure = Figure(figsize=(1.6 + 1.3 * len(models), 3.2), layout='constrained')
    axes = figure.subplots()
    width = 0.8 / len(kinds)
    for number, kind in enumerate(kinds):
        at = np.arange(len(models)) + (number - (len(kinds) - 1) / 2) * width
        bars = axes.bar(at, [model[kind] for model in models.values()], width * 0.95,
                        label=result['suite'] if kind == 'top1' else kind, color=f'C{number}')
        axes.bar_label(bars, fmt='%.1f', fontsize=8)
    axes.set_xticks(range(len(models)), list(models))
    axes.set_ylabel('top-1, %')
    axes.legend(frameon=False)
    write_atomically(out, lambda path: figure.savefig(path, dpi=110))


def contact_sheet(image: Image.Image, out: str | Path, name: str = 'image',
                  corruptions: Sequence[str] = CORRUPTIONS, seed: int = 0) -> None:
    """One image in each corruption (rows) and severity (columns), the clean one first.

    Args:
        image: at the size that the network sees.
        out: the image to write.
        name: of the image below the suite's folder, which keys what is drawn.
        corruptions: which.
        seed: of what is drawn.
    """
    pixels = np.asarray(image.convert('RGB'))
    figure = Figure(figsize=(7.4, 1.1 * len(corruptions) + 0.4), layout='constrained')
    grid = figure.subplots(len(corruptions), 6, squeeze=False)
    for row, corruption in zip(grid, corruptions):
        row[0].imshow(pixels, interpolation='nearest')
        row[0].set_ylabel(corruption.replace('_', '\n'), rotation=0, ha='right', va='center',
                          fontsize=9)
        for axes, severity in zip(row[1:], SEVERITIES):
            key = sample_key(seed, 0, 0, f'{name}/{corruption}/{severity}')
            axes.imshow(corrupt(pixels, corruption, severity, key), interpolation='nearest')
        for axes in row:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
    for axes, title in zip(grid[0], ('clean', *SEVERITIES)):
        axes.set_title(str(title), fontsize=9)
    write_atomically(out, lambda path: figure.savefig(path, dpi=110))
