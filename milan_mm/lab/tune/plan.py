# SPDX-License-Identifier: Apache-2.0
"""How many steps the hours allow: rungs, of which the better half goes on with twice the steps."""
import math
from collections.abc import Sequence
from typing import NamedTuple

from ...errors import MilanError

LEAST_STEPS = 30  # of the first rung: with fewer, all choices are where they started
SEEDS = 2  # fresh ones, with which the best is compared with the default in the end
_RESERVE = 0.93  # of the hours; the rest is for what runs take longer than the ones before


class Pace(NamedTuple):
    """Of runs: seconds that each takes besides its steps, and seconds of a step of the default."""
    fixed: float
    step: float


class Rung(NamedTuple):
    """Runs of the same length: how many at most, and their steps in units of the first's."""
    runs: int
    steps: int


def make_rungs(choices: int) -> list[Rung]:
    """All, then the better half with twice the steps, down to three; then the last comparison."""
    rungs = [Rung(choices, 1)]
    while rungs[-1].runs > 3:
        rungs.append(Rung(math.ceil(rungs[-1].runs / 2), 2 * rungs[-1].steps))
    return [*rungs, Rung(2 * SEEDS, rungs[-1].steps)]


def seconds_of(unit: float, pace: Pace, rungs: Sequence[Rung], weights: Sequence[float]) -> float:
    """That rungs take.

    Args:
        unit: steps that a rung's ``steps`` count in.
        pace: of the runs.
        rungs: those to come.
        weights: of the choices that are left, see :attr:`Choice.weight`; whichever go on, the
            dearest are counted.
    """
    ranked = sorted(weights, reverse=True)
    total = 0.
    for rung in rungs:
        dear = ranked[:rung.runs] + [ranked[0]] * (rung.runs - len(ranked))
        total += sum(pace.fixed + weight * pace.step * unit * rung.steps for weight in dear)
    return total


def fit_steps(seconds: float, pace: Pace, rungs: Sequence[Rung], weights: Sequence[float],
              most: int) -> int:
    """Steps of the first of the rungs to come; below 1 if nothing fits.

    Args:
        seconds: that are left.
        pace, rungs, weights: see :func:`seconds_of`.
        most: steps of the last rung at most: those of the config's own schedule.
    """
    fixed = seconds_of(0, pace, rungs, weights)
    each = seconds_of(1, pace, rungs, weights) - fixed
    unit = min((_RESERVE * seconds - fixed) / each, most / rungs[-1].steps)
    return math.floor(rungs[0].steps * unit)


def refuse_too_few(steps: int, hours: float, spent: float, pace: Pace, rungs: Sequence[Rung],
                   weights: Sequence[float]) -> None:
    """Raises MilanError, with the hours that would do, if the steps are below the least."""
    if steps >= LEAST_STEPS or seconds_of(LEAST_STEPS, pace, rungs, weights) <= _RESERVE * (
            hours * 3600 - spent):
        return
    need = math.ceil((spent + seconds_of(LEAST_STEPS, pace, rungs, weights) / _RESERVE) / 36) / 100
    raise MilanError(
        f'--hours {hours:g} are too few: {sum(rung.runs for rung in rungs)} runs, the first of '
        f'{LEAST_STEPS} steps, the least that tells anything, take {need:.2f} hours (measured: '
        f'{pace.fixed:.0f} s a run and {pace.step:.2f} s a step). Give more hours, fewer choices '
        'with --only, smaller images or a smaller encoder')
