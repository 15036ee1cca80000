# SPDX-License-Identifier: Apache-2.0
"""Accuracy against severity, and a sheet that shows what the corruptions look like."""
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ...checkpoints import write_atomically
from ...keyed_random import sample_key
from ...reports.charts import Panel, save
from ...reports.theme import LIGHT, SERIES
from .corruptions import CORRUPTIONS, SEVERITIES, corrupt


def plot_severity(result: dict[str, Any], out: str | Path) -> None:
    """A panel with the mean over corruptions, and one for each; a line a classifier.

    Severity 0 is the accuracy on clean images, where that was measured; the dotted line is
    chance.
    """
    models = result['models']
    names = list(next(iter(models.values()))['accuracy'])

    def draw(axes: Axes, corruption: str | None) -> None:
        for (name, model), colour in zip(models.items(), itertools.cycle(SERIES)):
            values = model['accuracy'][corruption] if corruption else model['by_severity']
            x = model['severities']
            if 'clean' in model:
                x, values = [0, *x], [model['clean'], *values]
            axes.plot(x, values, color=LIGHT[colour], marker='o', label=name)
        axes.axhline(result['chance'], color=LIGHT['random'], linestyle=':', linewidth=1)
        axes.set_xticks(x)
        axes.set_xlabel('severity')
        axes.set_ylim(bottom=0)

    titles = [f'mean of {len(names)}: top-1, %', *(name.replace('_', ' ') for name in names)]
    save([Panel(title, functools.partial(draw, corruption=corruption), title, size=(3.2, 2.3))
          for title, corruption in zip(titles, [None, *names])], out, columns=4, share=True)


def plot_bars(result: dict[str, Any], out: str | Path) -> None:
    """The accuracy of each classifier on a suite without severities, and on clean images."""
    models = result['models']
    kinds = [kind for kind in ('clean', 'top1') if kind in next(iter(models.values()))]
    width = 0.8 / len(kinds)

    def draw(axes: Axes) -> None:
        for number, (kind, colour) in enumerate(zip(kinds, SERIES)):
            at = np.arange(len(models)) + (number - (len(kinds) - 1) / 2) * width
            bars = axes.bar(at, [model[kind] for model in models.values()], width * 0.95,
                            label=result['suite'] if kind == 'top1' else kind,
                            color=LIGHT[colour])
            axes.bar_label(bars, fmt='%.1f', fontsize=10)
        axes.margins(y=0.12)
        axes.set_xticks(range(len(models)), list(models))

    save([Panel('top-1, %', draw, 'Accuracy of each classifier',
                size=(2.2 + 1.3 * len(models), 3.4))], out, share=True)


def contact_sheet(image: Image.Image, out: str | Path, name: str = 'image',
                  corruptions: Sequence[str] = CORRUPTIONS, seed: int = 0) -> None:
    """One image in each corruption (rows) and severity (columns), the clean one first.

    Args:
        image: at the size that the network sees.
        out: the image to write.
        name: path of the image below the suite's folder, which keys the corruptions.
        corruptions: which.
        seed: seed of the corruptions.
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
