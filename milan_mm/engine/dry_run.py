# SPDX-License-Identifier: Apache-2.0
"""A training's first steps, to know what the whole of it takes."""
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process

from ..errors import MilanError
from ..progress import Progress
from .hooks import peak_memory_mb

STEPS = 3  # after one that is not timed


def dry_run(cfg: Config, build: Callable[[Config], Any]) -> None:
    """Builds what a training builds, takes a few steps and prints what the whole run takes.

    The work folder stays as it is.

    Args:
        cfg: of the training, complete.
        build: gives the runner of a config.

    Raises:
        MilanError: for what is the user's to mend, which a training would raise too, and if the
            checkpoints would not find room on the disk.
    """
    if cfg.get('resume'):
        raise MilanError('--dry-run tries a training from its start; leave --resume out')
    folder = Path(cfg.work_dir).absolute()
    with tempfile.TemporaryDirectory(prefix='milan_dry_run_') as temporary:
        cfg.work_dir = temporary
        runner = build(cfg)
        seconds = _seconds_a_step(runner)
        runner.visualizer.close()
    cfg.work_dir = str(folder)
    if not is_main_process():
        return
    loader, iterations = runner.train_dataloader, runner.max_iters
    images = loader.batch_size * get_world_size()
    size, kept = _checkpoint_bytes(runner), _checkpoints(cfg)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    memory = (f'{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the GPU'
              if torch.cuda.is_available() else f'{peak_memory_mb() / 1024:.1f} GiB')
    rows = {
        'images': f'{len(loader.dataset):,}',
        'length': f'{iterations:,} iterations, {runner.max_epochs} epochs'
                  if runner.max_epochs > 1 else f'{iterations:,} iterations',
        'step': f'{seconds:.3g} s, {images / seconds:.3g} images/s (mean of {STEPS}, after one '
                'that is not timed)',
        'time': f'{Progress.format_interval(seconds * iterations)} (hours:minutes:seconds), if '
                'images are read as fast as this; evaluations come on top',
        'memory': f'{memory} at most so far',
        'disk': f'{size / 2**20:,.0f} MiB a checkpoint, {kept} at a time; '
                f'{free / 2**20:,.0f} MiB free in {folder}',
    }
    for name, text in rows.items():
        print(f'{name:8}{text}')
    if size * kept > free:
        raise MilanError(f'{kept} checkpoints of {size / 2**20:,.0f} MiB have no room in {folder}, '
                         f'which has {free / 2**20:,.0f} MiB free; take another --work-dir, or '
                         'keep fewer: --cfg-options default_hooks.checkpoint.max_keep_ckpts=1')


def _seconds_a_step(runner: Any) -> float:
    """Mean time of a step, with its batch there before the clock starts."""
    wrapper = runner.optim_wrapper
    wrapper.initialize_count_status(runner.model, 0, runner.max_iters)
    runner.model.train()
    seconds = []
    batches = iter(runner.train_dataloader)
    for _ in Progress('steps', range(STEPS + 1)):
        try:
            batch = next(batches)
        except StopIteration:
            batches = iter(runner.train_dataloader)
            batch = next(batches)
        began = time.perf_counter()
        runner.model.train_step(batch, optim_wrapper=wrapper)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return sum(seconds[1:]) / STEPS


def _checkpoint_bytes(runner: Any) -> int:
    """Weights that are saved, and two moments of Adam for each that is trained."""
    tensors = runner.model.state_dict().values()
    trained = [p for p in runner.model.parameters() if p.requires_grad]
    return sum(t.nbytes for t in tensors) + 2 * sum(p.nbytes for p in trained)


def _checkpoints(cfg: Config) -> int:
    """How many lie in the folder at most: the old ones go once the new one is whole."""
    hook = cfg.get('default_hooks', {}).get('checkpoint') or {}
    kept = hook.get('max_keep_ckpts', -1)
    loop = cfg.get('train_cfg', {})
    length = loop.get('max_epochs') if hook.get('by_epoch', True) else loop.get('max_iters')
    every = max(-(-(length or 1) // max(hook.get('interval', 1), 1)), 1)
    return (min(kept, every) if kept > 0 else every) + 1
