# SPDX-License-Identifier: Apache-2.0
"""Curves of a study's runs: the time to the base's quality, and how far they are apart.

Runs with the same seed are compared; they saw the same images with the same first weights.
"""
import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import MilanError
from ...reports.curves import RunCurves, read_run, smooth
from ..steps import read_json

Curves = dict[str, dict[int, RunCurves]]  # cell -> seed -> its run


def read_curves(work: str | Path) -> tuple[str, Curves]:
    """The base's name, and the curves of all runs that logged any.

    Args:
        work: folder of a study.

    Raises:
        MilanError: if it is none, or its base has no curves.
    """
    work = Path(work).expanduser()
    study = read_json(work / 'study.json')
    if not isinstance(study.get('base'), str) or not isinstance(study.get('runs'), list):
        raise MilanError(f'{work} is no folder of a study with finished runs (study.json in it '
                         'names no base or no runs): give the --work-dir of milan ablate')
    curves: Curves = {}
    for run in study['runs']:
        if 'figures' in run:
            folder = work / f'runs/{run["cell"]}/seed{run["seed"]}/train'
            curves.setdefault(run['cell'], {})[run['seed']] = read_run(folder)
    if study['base'] not in curves:
        raise MilanError(f'{work}: no run of the base, {study["base"]}, is finished; go on with '
                         'milan ablate --resume')
    return study['base'], {study['base']: curves.pop(study['base']), **curves}


def seconds_of(run: RunCurves, step: float) -> float:
    """Seconds of training up to a step, evaluations and start not counted.

    From ``time``, which is the mean of a step's since the record before.
    """
    at, each = run.curves['time']
    done = np.clip(step - np.concatenate([[0.], at[:-1]]), 0, np.diff(at, prepend=0.))
    return float((done * each).sum())


def time_to(run: RunCurves, key: str, goal: float) -> float | None:
    """Seconds of training until a curve first reaches a value; None if it never does."""
    steps, values = run.curves[key]
    reached = np.flatnonzero(values >= goal)
    return seconds_of(run, steps[reached[0]]) if len(reached) else None


def times_table(base: str, curves: Curves, key: str) -> list[list[str]]:
    """For each cell, the seconds to the base's last value with the same seed.

    Raises:
        MilanError: if a run did not log ``key``.
    """
    _check(curves, (key, 'time'))
    goals = {seed: float(run.curves[key][1][-1]) for seed, run in curves[base].items()}
    own = {seed: seconds_of(run, run.curves[key][0][-1]) for seed, run in curves[base].items()}
    rows = [['cell', f'last {key}', 'seconds in all', "seconds to the base's last", 'of its time',
             'reached']]
    for cell, runs in curves.items():
        seeds = sorted(set(runs) & set(goals))
        found = {seed: time_to(runs[seed], key, goals[seed]) for seed in seeds}
        hits = {seed: seconds for seed, seconds in found.items() if seconds is not None}
        rows.append([
            cell, _spread([float(runs[seed].curves[key][1][-1]) for seed in seeds]),
            _spread([seconds_of(runs[seed], runs[seed].curves[key][0][-1]) for seed in seeds]),
            _spread(list(hits.values())),
            _spread([seconds / own[seed] for seed, seconds in hits.items()], digits=2),
            f'{len(hits)} of {len(seeds)}'])
    return rows


def apart_table(base: str, curves: Curves, key: str, weight: float = 0.0) -> list[list[str]]:
    """For each cell, the mean distance of its curve to the base's, beside that of seeds.

    The first is over pairs of the same seed, the last over all pairs of seeds of the base.

    Raises:
        MilanError: if a run did not log ``key``, or the base has one seed only.
    """
    _check(curves, (key, ))
    pairs = list(itertools.combinations(curves[base].values(), 2))
    if not pairs:
        raise MilanError(f'{base} has one seed only, so there is no distance between seeds: '
                         'milan ablate --seeds 3')
    seeds = statistics.mean(_distance(one, other, key, weight) for one, other in pairs)
    rows = [['cell', f'{key}: distance to the base', 'between seeds of the base', 'share']]
    for cell, runs in curves.items():
        same = [_distance(runs[seed], curves[base][seed], key, weight)
                for seed in sorted(set(runs) & set(curves[base]))]
        if cell != base and same:
            mean = statistics.mean(same)
            rows.append([cell, f'{mean:.4g}', f'{seeds:.4g}', f'{mean / seeds:.2f}'])
    return rows


def _distance(one: RunCurves, other: RunCurves, key: str, weight: float) -> float:
    """Mean absolute difference at the steps that both have."""
    (at, a), (where, b) = one.curves[key], other.curves[key]
    common, mine, theirs = np.intersect1d(at, where, return_indices=True)
    if not len(common):
        raise MilanError(f'{one.label} and {other.label} logged {key} at no common step')
    return float(np.abs(smooth(a, weight)[mine] - smooth(b, weight)[theirs]).mean())


def _check(curves: Curves, keys: Sequence[str]) -> None:
    for cell, runs in curves.items():
        for seed, run in runs.items():
            missing = next((key for key in keys if key not in run.curves), None)
            if missing:
                raise MilanError(f'{cell}, seed {seed} logged no {missing!r}; there are '
                                 f'{", ".join(sorted(run.curves))}')


def _spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean, least and most."""
    if not values:
        return '-'
    mean, least, most = statistics.mean(values), min(values), max(values)
    return f'{mean:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})'
