# SPDX-License-Identifier: Apache-2.0
"""What bounds MILAN in this run and what to do next: short rules over the run's own figures."""
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import MilanError
from ...evaluation.paired import verdict
from ...reports.curves import read_run

MOST = 3  # pieces of advice
_KNOWS_LITTLE = 8.0  # points a teacher is ahead of random weights, at least, if it can teach
_REACHED = 0.2  # of what the teacher is ahead of random weights; with less to go it is reached
_FALLING = 0.08  # of the loss's whole fall; with more in the last quarter it was not done
_FEW = 1000  # different things to train on
_HOPELESS = 30  # times the held-out things; where so many were needed, nobody will fetch them


def advise(results: dict) -> list[str]:
    """Sentences, the most telling first; empty if the figures say nothing.

    Args:
        results: what ``results.json`` holds.
    """
    if results.get('settings', {}).get('quick'):
        return ['Next: the same without --quick.']
    found = [*_teacher(results), *_steps(results), *_images(results), *_evidence(results)]
    return found[:MOST]


def training_facts(run: Path) -> dict[str, float]:
    """Steps and loss of a pretraining, as the rules need them; empty if nothing was logged.

    Returns:
        ``steps``; ``loss`` at the end; ``late_fall``: the share of its whole fall that the last
        quarter of the steps brought.
    """
    try:
        steps, loss = read_run(run).curves['loss']
    except (MilanError, KeyError):
        return {}
    parts = [loss[(steps > a * steps[-1]) & (steps <= b * steps[-1]) & np.isfinite(loss)]
             for a, b in ((0, .1), (.65, .75), (.9, 1))]
    if not all(len(part) for part in parts):
        return dict(steps=int(steps[-1]))
    first, late, last = (float(part.mean()) for part in parts)
    return dict(steps=int(steps[-1]), loss=round(last, 4),
                late_fall=round((late - last) / (first - last), 4) if first > last else 0.0)


def _teacher(results: dict) -> Iterator[str]:
    """Whether the teacher knows what is asked, and whether MILAN knows it all by now."""
    for kind, name in (('knn', 'k-NN'), ('linear', 'linear probe')):
        row = results['classification'].get(kind, {})
        if not {'milan', 'teacher', 'random'} <= set(row):
            continue
        worth, left = row['teacher'] - row['random'], row['teacher'] - row['milan']
        if worth < _KNOWS_LITTLE:
            yield (f'The teacher knows little of these images: its own {name} is '
                   f'{row["teacher"]:.1f} %, that of random weights {row["random"]:.1f} %. '
                   'Next: another teacher, one that was trained on more images, such as '
                   '--teacher ViT-B-16-quickgelu:openai.')
            return
        if left <= _REACHED * worth:
            yield (f'The teacher bounds it: its own {name} is {row["teacher"]:.1f} %, '
                   + (f'{left:.1f} points above' if left > 0 else
                      'no more than' if left == 0 else f'{-left:.1f} points below')
                   + ' MILAN\'s. Next: a better teacher; more steps with this one will add '
                   'little.')
            return


def _steps(results: dict) -> Iterator[str]:
    facts = results.get('training', {}).get('milan', {})
    if facts.get('late_fall', 0) > _FALLING:
        yield (f'MILAN\'s loss was still falling: the last quarter of the {facts["steps"]:,} steps '
               f'brought {facts["late_fall"]:.0%} of its whole fall. Next: more steps.')


def _images(results: dict) -> Iterator[str]:
    count = results.get('sizes', {}).get('train_files', _FEW)
    if count < _FEW:
        yield (f'It saw {count:,} different images, which is little. Next: more images '
               'of the kind; MILAN needs no labels, and captions only where the teacher is '
               'trained on them.')


def _evidence(results: dict) -> Iterator[str]:
    """What it would take to tell a difference that may be chance."""
    tests = results.get('paired', {}).get('classification', {}).get('knn', {})
    things = results.get('groups', 'images')
    one = len(results.get('seeds') or [0]) == 1
    test: dict[str, Any] | None = tests.get('mae')
    if test is None or test['low'] is None:
        return
    if verdict(test['difference'], test['p']) == 'level' and test['difference']:
        times = (0.5 * (test['high'] - test['low']) / abs(test['difference']))**2
        wanted = f'{_round(times * test["groups"]):,}'
        if times > _HOPELESS:
            yield (f'The difference to MAE is small beside its interval: take the two as equal on '
                   f'{test["groups"]:,} {things}.')
        elif times > 1:
            yield (f'To tell {test["difference"]:+.1f} points against MAE from chance takes about '
                   f'{wanted} held-out {things} instead of {test["groups"]:,}'
                   + (', or some of that in seeds: --seeds 3.' if one else '.'))
    elif one:
        yield 'Next: --seeds 3, which shows whether other trainings say the same.'


def _round(number: float) -> int:
    """To two digits."""
    digits = max(0, len(str(int(number))) - 2)
    return round(int(number), -digits)
