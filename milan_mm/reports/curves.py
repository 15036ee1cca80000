# SPDX-License-Identifier: Apache-2.0
"""Curves of several runs, from the scalars mmengine writes (``vis_data/scalars.json``)."""
import functools
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from ..errors import MilanError
from .charts import Panel, save
from .theme import LIGHT, SERIES


class RunCurves(NamedTuple):
    """The scalars of a run: for each key, steps and values in the order of the steps."""
    label: str
    curves: dict[str, tuple[np.ndarray, np.ndarray]]


def read_run(path: str | Path, label: str | None = None) -> RunCurves:
    """Reads a work folder, one of its timestamp folders, or a ``scalars.json``.

    A work folder has a timestamp folder for each start. A later one that was resumed continues
    the earlier ones: of these, what lies before its first step is kept.

    Args:
        path: of the run.
        label: in the legend; by default the folder's name.

    Raises:
        MilanError: if no scalars are found there.
    """
    path = Path(path).expanduser()
    files = find_scalars(path)
    records: list[dict] = []
    for file in files:
        new = [r for r in map(_record, file.read_text(encoding='utf-8').splitlines()) if r]
        if new:
            first: dict[Any, float] = {}
            for record in new:
                kind = _kind(record)
                first[kind] = min(record['step'], first.get(kind, math.inf))
            records = [r for r in records if r['step'] < first.get(_kind(r), math.inf)] + new
    points: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for key, value in record.items():
            if key != 'step' and isinstance(value, (int, float)):
                points.setdefault(key, []).append((record['step'], float(value)))
    if not points:
        raise MilanError(f'{files[-1]} holds no scalars yet')
    return RunCurves(label or _label(path), {
        key: tuple(np.array(sorted(pairs, key=lambda pair: pair[0])).T)
        for key, pairs in points.items()})


def _kind(record: dict) -> Any:
    """Records of one kind count alike: training in iterations, evaluation perhaps in epochs."""
    return 'train' if 'iter' in record or 'loss' in record else tuple(sorted(record))


def find_scalars(path: Path) -> list[Path]:
    """The files of a run, oldest first (timestamps sort as text)."""
    if path.is_file():
        return [path]
    for pattern in ('scalars.json', 'vis_data/scalars.json', '*/vis_data/scalars.json'):
        found = sorted(path.glob(pattern))
        if found:
            return found
    raise MilanError(f'no scalars of a run at {path}: expected a work folder, one of its timestamp '
                     'folders, or a scalars.json')


def smooth(values: np.ndarray, weight: float) -> np.ndarray:
    """Exponential moving average, unbiased at its start; NaN and infinite values are passed by."""
    out, average, mass = np.empty_like(values), 0.0, 0.0
    for i, value in enumerate(values):
        if math.isfinite(value):
            average = weight * average + (1 - weight) * value
            mass = weight * mass + (1 - weight)
        out[i] = average / mass if mass else math.nan
    return out


def table(runs: Sequence[RunCurves], keys: Sequence[str], weight: float = 0.0) -> str:
    """First, last, least and greatest value of each curve, and where the last one is."""
    rows: list[tuple[str, ...]] = [('run', 'key', 'first', 'last', 'min', 'max', 'at step')]
    for run in runs:
        for key in keys:
            if key not in run.curves:
                rows.append((run.label, key, *('-', ) * 5))
                continue
            steps, values = run.curves[key]
            values = smooth(values, weight)
            figures = (values[0], values[-1], np.nanmin(values), np.nanmax(values))
            rows.append((run.label, key, *(f'{v:.4g}' for v in figures), f'{steps[-1]:.0f}'))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return '\n'.join(
        '  '.join(cell.ljust(width) if i < 2 else cell.rjust(width)
                  for i, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows)


def plot(runs: Sequence[RunCurves], keys: Sequence[str], out: str | Path,
         weight: float = 0.0) -> None:
    """One panel a key, one line a run; where smoothed, the raw line faintly behind.

    Args:
        runs: of :func:`read_run`.
        keys: curves that at least one run has.
        out: an image whose suffix Matplotlib can write.
        weight: of :func:`smooth`, in [0, 1).
    """

    def draw(axes: Axes, key: str) -> None:
        for run, name in zip(runs, itertools.cycle(SERIES)):
            if key not in run.curves:
                continue
            steps, values = run.curves[key]
            if weight:
                axes.plot(steps, values, color=LIGHT[name], alpha=0.25, linewidth=1)
            axes.plot(steps, smooth(values, weight), color=LIGHT[name], label=run.label,
                      marker='o' if len(steps) < 3 else None)
        axes.set_xlabel('step')

    save([Panel(key, functools.partial(draw, key=key), key, size=(5.2, 3.6)) for key in keys], out)


def check_keys(runs: Sequence[RunCurves], keys: Sequence[str]) -> None:
    """Raises MilanError for a key that no run has."""
    there = sorted({key for run in runs for key in run.curves})
    for key in keys:
        if key not in there:
            raise MilanError(f'no run has {key!r}; there are {", ".join(there)}')


def _record(line: str) -> dict | None:
    """A line of the file; None for one that was cut off when a run was killed."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(record, dict) and isinstance(record.get('step'), (int, float))
    return record if whole else None


def _label(path: Path) -> str:
    parts = path.resolve().parts
    while len(parts) > 1 and (
            parts[-1] in ('scalars.json', 'vis_data') or _is_timestamp(parts[-1])):
        parts = parts[:-1]
    return parts[-1]


def _is_timestamp(name: str) -> bool:
    return len(name) == 15 and name[8] == '_' and name.replace('_', '').isdigit()
