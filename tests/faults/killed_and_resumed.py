# SPDX-License-Identifier: Apache-2.0
"""Each task's training killed twice with -9 and resumed, against the same one left alone.

    python tests/faults/killed_and_resumed.py [--tasks WORD ...] [--runs 10]

Each run draws how often it saves, and the moments of its kills. It is a fault if anything in the
last checkpoint differs in a bit from that of the run left alone: weights, averages of weights,
moments, schedules, and the log's histories but for times and memory.
"""
import argparse
import contextlib
import os
import random
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from conftest import ROOT  # noqa: E402
from faults.foreign_files import SMALL, make_images, make_teacher  # noqa: E402
from helpers_tasks import (  # noqa: E402
    SMALL_DETECTOR,
    SMALL_SEGMENTOR,
    make_scenes,
    small_classifier,
    small_detector,
    small_segmentor,
)
from test_classification import SMALL as SMALL_CLASSIFIER  # noqa: E402
from test_detection import coco_file  # noqa: E402

from milan_mm.checkpoints.io import read_checkpoint, run_checkpoints  # noqa: E402
from milan_mm.cli.main import main  # noqa: E402

SAVING = ['default_hooks.checkpoint.by_epoch=False', 'default_hooks.checkpoint.interval=1',
          'default_hooks.checkpoint.max_keep_ckpts=-1', 'default_hooks.checkpoint.save_best=None']
# 8 batches an epoch, or 4 with two processes: updates are not made at its end.
UNEVEN = ['train_dataloader.batch_size=3', 'optim_wrapper.accumulative_counts=3']
WORKER = ['train_dataloader.num_workers=1', 'train_dataloader.persistent_workers=True']
TASKS = ('pretraining', 'pretraining accumulated', 'finetuning', 'linear probe', 'Mask R-CNN',
         'UperNet', 'pretraining with 2 processes', 'finetuning accumulated with 2 processes')


class Ground:
    """A folder with data, a teacher and configs, and the commands that train on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = make_images(folder / 'classes/train')
        self.teacher = make_teacher(folder / 'teacher')
        make_scenes(folder / 'scenes', ('ground', 'red', 'green'))
        (folder / 'coco').mkdir()
        for part, count in (('train', 7), ('val', 2)):
            coco_file(folder / f'coco/annotations/{part}.json',
                      [(80 + i, 60 + 2 * i) for i in range(count)])
        self.configs = dict(
            finetuning=small_classifier(folder / 'finetuning.py', 'finetune'),
            linear=small_classifier(folder / 'linear.py', 'linear'),
            detection=small_detector(folder / 'detection.py'),
            segmentation=small_segmentor(folder / 'segmentation.py'))
        with open(self.configs['finetuning'], 'a') as file:
            file.write("custom_hooks = [dict(type='EMAHook')]\n")

    def command(self, task: str, work: Path, *more: Any, options: list[str] = ()) -> list[str]:
        """The words that train a task into a folder, saving after every step."""
        kind = task.split()[0]
        if kind == 'pretraining':
            words = [ROOT / 'configs/quickstart/milan.py', '--data-root', self.images, '--epochs',
                     3], [*SMALL, f'model.target_generator.pretrained={self.teacher}',
                          'model.backbone.drop_path_rate=.2', 'train_dataloader.batch_size=4']
        elif kind in ('finetuning', 'linear'):
            words = [self.configs[kind], '--data-root', self.images.parent, '--epochs', 3], [
                *SMALL_CLASSIFIER, 'train_cfg.val_interval=2', 'train_dataloader.batch_size=4']
        elif kind == 'Mask':
            words = [self.configs['detection'], '--data-root', self.folder / 'coco', '--epochs',
                     4], [*SMALL_DETECTOR, *WORKER]
        else:  # dropout, and an augmentation of each kind
            words = [self.configs['segmentation'], '--data-root', self.folder / 'scenes',
                     '--iters', 14], [*SMALL_SEGMENTOR, *WORKER, 'train_cfg.val_interval=5',
                                      'model.decode_head.dropout_ratio=.1']
        return ['train', *map(str, words[0]), '--work-dir', str(work), *map(str, more),
                '--cfg-options', *words[1], *SAVING, *(UNEVEN if 'accumulated' in task else ()),
                *options]


def differences(one: Path, two: Path) -> list[str]:
    """What differs between two checkpoints, by name."""
    parts = [dict(_leaves(_kept(read_checkpoint(path)), '')) for path in (one, two)]
    return [name for name in sorted(parts[0].keys() | parts[1].keys()) if not _same(
        *(part.get(name) for part in parts))]


def _kept(checkpoint: dict) -> dict:
    """All but what tells times, memory and paths."""
    logs = {name: log for name, log in checkpoint['message_hub']['log_scalars'].items()
            if not name.endswith(('time', 'memory_mb', 'images_per_s'))}
    meta = {key: checkpoint['meta'][key] for key in ('epoch', 'iter', 'seed')}
    return {**checkpoint, 'meta': meta, 'message_hub': logs}


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(
        value, (list, tuple)) else None
    if items is None:
        yield name, value
    else:
        yield f'{name}:', len(value)
        for key, item in items:
            yield from _leaves(item, f'{name}.{key}')


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    return type(one) is type(two) and one == two


def start(words: list[str], processes: int, log: Path) -> list[int]:
    """Forks a training; gives the numbers of its processes."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    numbers = []
    for rank in range(processes):
        number = os.fork()
        if number:
            numbers.append(number)
            continue
        if processes > 1:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes),
                              MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
        with open(log, 'ab', 0) as file:
            for output in (1, 2):
                os.dup2(file.fileno(), output)
        code = 1
        try:
            code = main([*words[:2], *(('--launcher', 'pytorch') if processes > 1 else ()),
                         *words[2:]])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return numbers


def ended(numbers: list[int]) -> list[int]:
    """Waits for them; their exit codes."""
    return [os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) for number in numbers]


def newest(work: Path) -> int:
    found = run_checkpoints(work) if work.exists() else []
    return int(found[0].stem.split('_')[1]) if found else 0


def kill_and_resume(ground: Ground, task: str, runs: int, seed: int = 0) -> dict[str, Any]:
    """Counts what happened in so many runs of a task, each killed twice."""
    processes, draw = 2 if '2 processes' in task else 1, random.Random(f'{task} {seed}')
    folder = ground.folder / task.replace(' ', '_')
    folder.mkdir()
    log = folder / 'log.txt'
    began = time.time()
    codes = ended(start(ground.command(task, folder / 'alone'), processes, log))
    assert not any(codes), log.read_text()[-3000:]
    last = run_checkpoints(folder / 'alone')[0]
    counts: dict[str, Any] = dict(steps=int(last.stem.split('_')[1]), runs=0, kills=0, differ=0)
    places: list[int] = []
    for run in range(runs):
        work, interval = folder / str(run), draw.choice((1, 1, 2, 3))
        words = ground.command(task, work, '--resume', options=[
            f'default_hooks.checkpoint.interval={interval}',
            'default_hooks.checkpoint.max_keep_ckpts=2'])
        for _ in range(2):
            # From the newest checkpoint on, killed some steps after the next one.
            numbers, before = start(words, processes, log), newest(work)
            while newest(work) <= before and not os.waitpid(numbers[0], os.WNOHANG)[0]:
                time.sleep(.002)
            time.sleep(draw.random() * .25)
            for number in numbers:
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(number, signal.SIGKILL)
                    os.waitpid(number, 0)
            places.append(newest(work))
            counts['kills'] += places[-1] < counts['steps']
        codes = ended(start(words, processes, log))
        assert not any(codes), log.read_text()[-3000:]
        differ = differences(last, work / last.name)
        counts['runs'] += 1
        counts['differ'] += bool(differ)
        if differ:
            print(f'{task}, run {run}: {len(differ)} parts differ: {differ[:5]}', flush=True)
    return {**counts, 'resumed from': sorted(places), 'seconds': round(time.time() - began)}


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--tasks', nargs='+', default=[''], help='only those with such a word')
    parser.add_argument('--runs', type=int, default=10)
    args = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        ground = Ground(Path(name))
        for task in TASKS:
            if any(word in task for word in args.tasks):
                counts = kill_and_resume(ground, task, args.runs)
                faults += counts['differ']
                print(f'{task:42}', ', '.join(f'{k} {v}' for k, v in counts.items()), flush=True)
    sys.exit(bool(faults))
