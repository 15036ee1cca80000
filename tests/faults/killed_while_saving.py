# SPDX-License-Identifier: Apache-2.0
"""A training that saves after every step, killed with -9 again and again, and resumed each time.

    python tests/faults/killed_while_saving.py [--kills 50] [--keep 1]

Half of the kills wait until a checkpoint is being written, the others come at a random moment. It
is a fault if a kill loses a checkpoint that was there, leaves none that reads back, or a
``last_checkpoint`` that points to nothing whole.
"""
import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from conftest import ROOT  # noqa: E402
from faults.foreign_files import SMALL, make_images  # noqa: E402

import milan_mm  # noqa: E402, F401  # once, for all the processes that are forked
from milan_mm.checkpoints.io import is_whole, run_checkpoints  # noqa: E402
from milan_mm.cli.main import main  # noqa: E402


def start(images: Path, work: Path, keep: int) -> int:
    """Forks a training that resumes by itself; gives its process id."""
    process = os.fork()
    if process:
        return process
    with open(os.devnull, 'w') as nothing, contextlib.redirect_stdout(nothing), \
            contextlib.redirect_stderr(nothing):
        code = main(list(map(str, [
            'train', ROOT / 'configs/quickstart/mae.py', '--data-root', images, '--work-dir', work,
            '--epochs', 10000, '--resume', '--cfg-options', *SMALL,
            'model.backbone.arch.embed_dims=192', 'default_hooks.checkpoint.by_epoch=False',
            'default_hooks.checkpoint.interval=1',
            f'default_hooks.checkpoint.max_keep_ckpts={keep}'])))
    os._exit(code)


def number(path: Path) -> int:
    return int(path.stem.split('_')[1])


def kill_again_and_again(folder: Path, kills: int, keep: int = 1, seed: int = 0) -> dict[str, int]:
    """Counts what happened: faults, kills in the midst of a write, steps that were reached."""
    images, work, draw = make_images(folder / 'images'), folder / 'work', random.Random(seed)
    counts = dict(kills=0, midst=0, lost=0, dangling=0, ended=0, steps=0)
    newest = 0
    for i in range(kills):
        process, until = start(images, work, keep), time.time() + 60
        while time.time() < until and not (len(done := run_checkpoints(work)) and number(
                done[0]) > newest):
            time.sleep(0.005)  # until it has come on by a step
        if i % 2:
            while time.time() < until and not list(work.glob('.*.part')):
                pass
        else:
            time.sleep(draw.random() * 0.3)
        if os.waitpid(process, os.WNOHANG)[0]:
            counts['ended'] += 1
            continue
        before = number(run_checkpoints(work)[0])
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        counts['kills'] += 1
        counts['midst'] += bool(list(work.glob('.*.part')))
        found = [path for path in run_checkpoints(work) if is_whole(path)]
        pointer = Path((work / 'last_checkpoint').read_text())
        counts['lost'] += not found or number(found[0]) < before
        counts['dangling'] += not pointer.is_file() or not is_whole(pointer)
        newest = number(found[0]) if found else 0
    return {**counts, 'steps': newest}


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--keep', type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        counts = kill_again_and_again(Path(name), args.kills, args.keep)
    print(counts)
    sys.exit(bool(counts['lost'] or counts['dangling'] or counts['ended']))
