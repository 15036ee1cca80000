# SPDX-License-Identifier: Apache-2.0
"""A long training, workers that are killed, and one of two processes that is.

    python tests/faults/endurance.py [--iters 2000]

Memory, open files and threads of the process and its workers after a tenth of the iterations and
at their end. Then each of two workers is killed at a random moment, and each of two training
processes: the training, or what is left of it, ends within a minute, in one line.
"""
import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from conftest import ROOT  # noqa: E402
from faults.foreign_files import SMALL, make_images  # noqa: E402
from faults.killed_and_resumed import ended, start  # noqa: E402

from milan_mm.checkpoints.io import is_whole, run_checkpoints  # noqa: E402

LIMIT = 60  # seconds


def command(images: Path, work: Path, epochs: int) -> list[str]:
    return list(map(str, [
        'train', ROOT / 'configs/quickstart/mae.py', '--data-root', images, '--work-dir', work,
        '--epochs', epochs, '--cfg-options', *SMALL, 'train_dataloader.batch_size=4',
        'train_dataloader.num_workers=2', 'train_dataloader.persistent_workers=True',
        'default_hooks.checkpoint.interval=5', 'default_hooks.checkpoint.max_keep_ckpts=2']))


def children(number: int) -> list[int]:
    return [int(p) for task in Path(f'/proc/{number}/task').iterdir()
            for p in (task / 'children').read_text().split()]


def measured(number: int) -> dict[str, Any]:
    """Of a process and its workers: resident MB, open files, threads."""
    found = dict(mb=[], files=[], threads=[])
    for one in (number, *children(number)):
        status = dict(line.split(':', 1) for line in Path(
            f'/proc/{one}/status').read_text().splitlines())
        found['mb'].append(round(int(status['VmRSS'].split()[0]) / 1024, 1))
        found['threads'].append(int(status['Threads']))
        found['files'].append(len(os.listdir(f'/proc/{one}/fd')))
    return found


def epoch(work: Path) -> int:
    found = run_checkpoints(work) if work.exists() else []
    return int(found[0].stem.split('_')[1]) if found else 0


def wait_for(work: Path, wanted: int, number: int) -> None:
    while epoch(work) < wanted:
        assert not os.waitpid(number, os.WNOHANG)[0], 'it ended by itself'
        time.sleep(.01)


def endure(folder: Path, images: Path, iters: int) -> bool:
    """Prints both measures; whether memory grew by less than 2 % and nothing else grew."""
    epochs, work = iters // 6, folder / 'long'
    number, = start(command(images, work, epochs), 1, folder / 'long.log')
    tenth = max(5, epochs // 50 * 5)
    wait_for(work, tenth, number)
    before = measured(number)
    wait_for(work, epochs // 5 * 5 - 5, number)
    after = measured(number)
    code, = ended([number])
    growth = sum(after['mb']) / sum(before['mb']) - 1
    print(f'{iters} iterations: after {tenth * 6} {before}, near the end {after}: memory '
          f'{growth:+.2%}, exit code {code}', flush=True)
    # A file may be open for a moment, such as one that passes an image on.
    return (code == 0 and growth < .02 and before['threads'] == after['threads'] and all(
        then <= first + 2 for first, then in zip(before['files'], after['files'])))


def kill_one(folder: Path, images: Path, which: str, draw: random.Random) -> bool:
    """Kills a worker or a process; whether the rest ended well: in time, in a line, saved."""
    name, place = which.rsplit(' ', 1)
    processes = 1 if name == 'worker' else 2
    work, log = folder / which, folder / f'{which}.log'
    numbers = start(command(images, work, 10_000), processes, log)
    wait_for(work, 5, numbers[0])
    time.sleep(draw.random() * .3)
    victim = (children(numbers[0]) if name == 'worker' else numbers)[int(place)]
    rest = [number for number in numbers if number != victim]
    began = time.time()
    os.kill(victim, signal.SIGKILL)
    codes = []
    while rest and time.time() < began + LIMIT:
        for number in list(rest):
            done, status = os.waitpid(number, os.WNOHANG)
            if done:
                rest.remove(number)
                codes.append(os.waitstatus_to_exitcode(status))
        time.sleep(.01)
    for number in rest:
        os.kill(number, signal.SIGKILL)
    text = log.read_text(errors='replace')
    lines = [line for line in text.splitlines() if line.startswith('error: ')]
    good = (not rest and codes == [2] and len(lines) == 1 and 'Traceback' not in text
            and is_whole(run_checkpoints(work)[0]))
    print(f'{"ok" if good else "FAULT"}: {which} killed: {time.time() - began:.1f} s, exit codes '
          f'{codes}, {lines[0][:300] if lines else text[-1500:]}', flush=True)
    return good


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--iters', type=int, default=2000)
    args = parser.parse_args()
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = make_images(folder / 'images')
        good = [kill_one(folder, images, which, draw) for which in (
            'worker 0', 'worker 1', 'process 0', 'process 1')]
        good.append(endure(folder, images, args.iters))
    sys.exit(not all(good))
