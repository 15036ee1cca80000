# SPDX-License-Identifier: Apache-2.0
"""How time, operations and memory of a step grow with each of the things that decide them."""
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...inference.device import check_device
from . import processes
from .contenders import LETTERS, Step
from .counting import count_flops
from .measuring import in_own_process, peak_mb, report

#: What is varied, and its values; the others stay at the first of theirs. Processes have one thread
#: or one card each, and as many images as one alone; their averaging of gradients is part of the
#: step.
GRIDS: dict[str, tuple] = dict(
    batch_size=(8, 2, 4, 16, 32), img_size=(224, 112, 160, 320), mask_ratio=(0.75, 0.5, 0.9),
    arch=('vit-b', 'vit-l'), processes=(1, 2))


def benchmark(varied: Sequence[str] = tuple(GRIDS), steps: int = 3, device: str | None = None,
              memory: bool = True, clock: str = 'wall',
              json_file: str | Path | None = None) -> list[dict[str, Any]]:
    """Varies one thing at a time and fits the exponents of time and of operations.

    Args:
        varied: which of :data:`GRIDS`.
        steps: timed steps of each.
        device: where; None for a GPU if there is one.
        memory: whether to measure it, in a process for each row.
        clock: see :func:`milan_mm.lab.benchmark.step.benchmark`.
        json_file: see :func:`report`.

    Returns:
        The rows of the table.
    """
    place = check_device(device)
    usual = {name: values[0] for name, values in GRIDS.items()}
    rows: list[dict[str, Any]] = []
    for name in varied:
        own = [_measure({**usual, name: value}, name, steps, place, clock, memory)
               for value in GRIDS[name]]
        for value, row in zip(GRIDS[name], own):
            row['varied'] = f'{name} {value}'
            print(f'{row["varied"]}: {row["seconds"]:.3g} s', flush=True)
        if len(own) > 2:  # of numbers; sizes by name have no exponent
            sizes = [float(value) for value in GRIDS[name]]
            own[0]['exponents'] = ' and '.join(
                f'{exponent(sizes, [row[key] for row in own]):.2f}' for key in ('seconds', 'GFLOP'))
        rows += own
    order = ('varied', 'seconds', 'images/s', 'GFLOP', 'peak memory GiB', 'exponents')
    report(f'A training step of MILAN as one thing varies, the others at {usual}; float32, '
           f'{place}, {clock} time; exponents of seconds and of operations',
           [{key: row.get(key) for key in order} for row in rows], json_file, place)
    return rows


def _measure(what: dict[str, Any], varied: str, steps: int, place: torch.device, clock: str,
             memory: bool) -> dict[str, Any]:
    step = _step(what, place, clock)
    images = what['batch_size'] * what['processes']
    if varied == 'processes':
        flops = count_flops(step)
        del step
        found = processes.measure(what['processes'], _arguments(what), steps, place, clock)
        seconds, peak = found['seconds'], found['MB']
    else:
        seconds = statistics.median([step() for _ in range(steps + 1)][1:])
        flops = count_flops(step)
        peak = in_own_process(__name__, 'measure_memory', what, str(place)) if memory else None
    return {'seconds': seconds, 'images/s': images / seconds, 'GFLOP': flops / 1e9,
            'peak memory GiB': peak and peak / 1024}


def measure_memory(what: dict[str, Any], device: str) -> float:
    """Peak in MB of a process, or of its card, that takes two steps."""
    step = _step(what, torch.device(device))
    step(), step()
    return peak_mb(torch.device(device))


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """b of values = a sizes^b, by least squares of the logarithms."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    mean_x, mean_y = statistics.mean(x), statistics.mean(y)
    return (sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y))
            / sum((a - mean_x)**2 for a in x))


def _step(what: dict[str, Any], place: torch.device, clock: str = 'wall') -> Step:
    return Step(processes.BASE, device=place, clock=clock, **_arguments(what))


def _arguments(what: dict[str, Any]) -> dict[str, Any]:
    """Of :class:`Step`."""
    assert what['arch'] in LETTERS
    return {name: value for name, value in what.items() if name != 'processes'}
