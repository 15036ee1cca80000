# SPDX-License-Identifier: Apache-2.0
"""Steps in several processes, each with images of its own and one thread or one card."""
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import multiprocessing

from ...errors import MilanError
from .contenders import Step
from .measuring import peak_mb

BASE = 'exact'


def measure(count: int, what: dict[str, Any], steps: int, device: torch.device,
            clock: str = 'wall') -> dict[str, Any]:
    """Starts them, on this machine.

    Args:
        count: of the processes.
        what: arguments of :class:`Step`, the same for each.
        steps: timed steps.
        device: 'cpu', or 'cuda' with a card for each.
        clock: of :class:`Step`; 'cpu' leaves out most of the waiting for each other.

    Returns:
        ``seconds`` of a step, of the slowest process and the median of the steps, and ``MB``, the
        largest memory of one of them.

    Raises:
        MilanError: if there are fewer cores or cards.
    """
    have = torch.cuda.device_count() if device.type == 'cuda' else os.cpu_count() or 1
    if count > have:
        kind = 'GPUs' if device.type == 'cuda' else 'cores'
        raise MilanError(f'{count} processes take {count} {kind}, here are {have}: leave out '
                         '--varied processes')
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_worker, (count, what, steps, device.type, clock, folder),
                              nprocs=count)
        found = [json.loads((Path(folder) / f'{rank}.json').read_text()) for rank in range(count)]
    slowest = [max(turn) for turn in zip(*(one['seconds'] for one in found))]
    return dict(seconds=statistics.median(slowest), MB=max(one['MB'] for one in found))


def _worker(rank: int, count: int, what: dict[str, Any], steps: int, kind: str, clock: str,
            folder: str) -> None:
    torch.set_num_threads(1)
    device = torch.device(kind, rank) if kind == 'cuda' else torch.device(kind)
    if kind == 'cuda':
        torch.cuda.set_device(device)
    dist.init_process_group('nccl' if kind == 'cuda' else 'gloo', f'file://{folder}/group',
                            rank=rank, world_size=count)
    step = Step(BASE, device=device, clock=clock, **what)
    step.average_gradients()
    seconds = []
    for _ in range(1 + steps):  # the first one allocates
        dist.barrier()
        seconds.append(step())
    dist.destroy_process_group()
    (Path(folder) / f'{rank}.json').write_text(json.dumps(
        dict(seconds=seconds[1:], MB=peak_mb(device))))
