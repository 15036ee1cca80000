# SPDX-License-Identifier: Apache-2.0
"""Training steps, here in each mode and in mmpretrain, on the same work, taken in turns."""
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...inference.device import check_device
from .contenders import CONTENDERS, Step
from .counting import count_flops, peak_flops, products
from .measuring import faster, in_own_process, peak_mb, report, take_turns


def benchmark(arch: str = 'vit-b', batch_size: int = 8, steps: int = 5, device: str | None = None,
              contenders: Sequence[str] = tuple(CONTENDERS), memory: bool = True,
              clock: str = 'wall', json_file: str | Path | None = None) -> list[dict[str, Any]]:
    """Takes timed steps of all contenders in turns and prints the figures.

    Args:
        arch: size of the student.
        batch_size: number of images in a step.
        steps: number of timed steps of each.
        device: where to compute; None for a GPU if there is one.
        contenders: which of :data:`CONTENDERS`; ratios are to mmpretrain's MILAN if it is one of
            them, else to the last.
        memory: whether to measure each one's memory, in a process of its own.
        clock: 'wall', or 'cpu' for seconds of the processor, which others at work on the machine
            lengthen less; with one thread only, as threads that wait count too.
        json_file: see :func:`report`.

    Returns:
        The rows of the table.
    """
    place = check_device(device)
    takers = {name: Step(name, arch, batch_size, place, clock) for name in contenders}
    seconds = take_turns(takers, steps, warm_up=2)
    base = 'mmpretrain' if 'mmpretrain' in takers else contenders[-1]
    rows, peaks = [], {}
    for name, step in takers.items():
        looked = step if step.shares else Step(CONTENDERS[name].plain or name, arch, batch_size,
                                               place)
        peaks[name] = peak_flops(products(looked), step.contender.dtype, place,
                                 clock=step.clock)
        rows.append(_row(step, seconds[name], seconds[base], count_flops(looked), peaks[name]))
        if memory:
            rows[-1]['peak memory GiB'] = in_own_process(
                __name__, 'measure_memory', name, arch, batch_size, str(place)) / 1024
    report(f'A training step: {arch}, 224 px, {batch_size} images, forward, backward and AdamW, '
           f'{place}; the median of {steps} turns, {clock} time', rows, json_file, place,
           seconds=seconds, peak_gflops={name: peak / 1e9 for name, peak in peaks.items()})
    print(f"\ntimes: the rate by that of {CONTENDERS[base].label}. Of peak: of the rate at which "
          'matrix products of the same shapes alone run here, '
          + ', '.join(f'{peak / 1e9:.0f} GFLOP/s ({name})' for name, peak in peaks.items()))
    return rows


def _row(step: Step, seconds: Sequence[float], base: Sequence[float], flops: float,
         peak: float) -> dict[str, Any]:
    median, whole = statistics.median(seconds), sum(step.shares.values())
    parts = ('teacher', 'encoder', 'decoder', 'optimizer')
    return {
        'contender': step.contender.label,
        'precision': str(step.contender.dtype).removeprefix('torch.'),
        'images/s': len(step.pixels) / median, 'times': str(faster(seconds, base)),
        'views/s': len(step.pixels) * step.views / median, 'GFLOP': flops / 1e9,
        'of peak': f'{flops / median / peak:.0%}', 'peak memory GiB': None,
        'checkpoint GiB': _bytes([step.model.state_dict(), step.optimizer.state_dict()]) / 2**30,
        ' / '.join(parts): ' / '.join(f'{step.shares[part] / whole:.0%}' for part in parts)
        if 'teacher' in step.shares else None}


def _bytes(state: Any) -> int:
    """Of all tensors of a checkpoint."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    parts = state.values() if isinstance(state, dict) else state if isinstance(
        state, (list, tuple)) else ()
    return sum(map(_bytes, parts))


def measure_memory(name: str, arch: str, batch_size: int, device: str) -> float:
    """Peak in MB of a process, or of its card, that takes two steps of a contender."""
    place = torch.device(device)
    step = Step(name, arch, batch_size, place)
    step(), step()
    return peak_mb(place)
