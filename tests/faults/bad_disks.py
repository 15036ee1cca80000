# SPDX-License-Identifier: Apache-2.0
"""Work folders and outputs that cannot be written, in ways that a user meets.

    python tests/faults/bad_disks.py [--only WORD ...]

A folder where a file should be and the other way round, a read-only disk, a full one, one that
fills up or goes away while a training runs, and a limit of the file size. Each command ends in one
line with exit code 2, and what was a good checkpoint is one after it. Disks are mounted in a
namespace of their own, for which Linux wants root; without, these cases are left out.
"""
import argparse
import contextlib
import ctypes
import functools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from conftest import ROOT  # noqa: E402
from faults.foreign_files import SMALL, make_images  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.registry import HOOKS  # noqa: E402

from milan_mm.checkpoints.io import is_whole, run_checkpoints  # noqa: E402
from milan_mm.cli.main import main  # noqa: E402


def mount(*words: object) -> None:
    subprocess.run(['mount', *map(str, words)], check=True, capture_output=True)


def a_file(work: Path) -> None:
    work.parent.mkdir(exist_ok=True)
    work.write_text('mine')


def below_a_file(work: Path) -> None:
    work.parent.write_text('mine')


def read_only(work: Path) -> None:
    mount('-t', 'tmpfs', '-o', 'ro', 'none', make(work))


def below_read_only(work: Path) -> None:
    read_only(work.parent)


def disk(size: str) -> Callable[[Path], None]:
    return lambda work: mount('-t', 'tmpfs', '-o', f'size={size}', 'none', make(work))


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def file_limit(size: int) -> Callable[[Path], None]:
    return lambda work: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


# A training of 4 epochs writes checkpoints of some MB, of which it keeps one.
CASES: dict[str, Callable[[Path], None]] = {
    'a file in its place': a_file, 'a file above it': below_a_file,
    'a read-only disk': read_only, 'below a read-only disk': below_read_only,
    'no room at all': disk('4k'), 'room for the log': disk('200k'),
    'room for half a checkpoint': disk('600k'), 'room for one checkpoint': disk('1300k'),
    'files of 0 bytes': file_limit(0), 'files of 10 kB': file_limit(10_000),
    'files of 400 kB': file_limit(400_000)}
# What happens to the folder after the second epoch.
LATER: dict[str, Callable[[Path], None]] = {
    'removed': shutil.rmtree, 'replaced by a file': lambda work: (shutil.rmtree(work),
                                                                 a_file(work))[1],
    'read-only': lambda work: (mount('--bind', work, work),
                               mount('-o', 'remount,ro,bind', work))[1],
    'filled up': lambda work: fill(work / 'others'),
    'limited files': file_limit(1000)}
OUTPUTS = {'convert': ['TARGET.pth', '--to', 'timm'], 'convert to hf': ['TARGET', '--to', 'hf'],
           'extract': ['--data', 'IMAGES', '--out', 'TARGET.npz', '--workers', '0']}


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), open(path, 'wb') as file:
        while True:
            file.write(b'0' * 1000)
            file.flush()


@HOOKS.register_module()
class Befalls(Hook):
    """Lets something happen to the work folder after the second epoch."""
    priority = 'LOWEST'

    def __init__(self, what: str) -> None:
        self.what = what

    def after_train_epoch(self, runner: object) -> None:
        if runner.epoch == 1:
            LATER[self.what](Path(runner.work_dir))


def run(words: list[object], before: Callable[[], object]) -> tuple[int, str]:
    """Runs a command in a fork with disks of its own; its exit code and what it printed."""
    reading, writing = os.pipe()
    number = os.fork()
    if number:
        os.close(writing)
        with open(reading, errors='replace') as file:
            text = file.read()
        return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), text
    code = 1
    try:
        for output in (1, 2):
            os.dup2(writing, output)
        sys.stdout = sys.stderr = os.fdopen(1, 'w', 1)
        own_disks()
        before()
        code = main(list(map(str, words)))
        work = Path(words[words.index('--work-dir') + 1]) if '--work-dir' in words else Path('-')
        found = run_checkpoints(work) if work.is_dir() else []
        if found and not is_whole(found[0]):
            raise AssertionError(f'{found[0]} is torn')
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def own_disks() -> bool:
    """Whether this process may mount; what it mounts is then seen by it alone."""
    if not hasattr(os, 'geteuid') or os.geteuid() or ctypes.CDLL(None).unshare(0x20000):
        return False
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        mount('--make-rprivate', '/')
        return True
    return False


def train(folder: Path, work: Path, hook: str = '[]') -> list[object]:
    config = folder / 'config.py'
    config.write_text(f"_base_ = {str(ROOT / 'configs/quickstart/mae.py')!r}\n"
                      f'custom_hooks = {hook}\n')
    return ['train', config, '--data-root', folder / 'images', '--work-dir', work, '--epochs', 4,
            '--cfg-options', *SMALL, 'model.backbone.arch.embed_dims=96',
            'default_hooks.checkpoint.interval=1']


def problem(code: int, text: str, may_fit: bool) -> str | None:
    """What is wrong with how a command ended; None if it is as it should be."""
    if 'Traceback' in text or '--- Logging error' in text:
        return 'a traceback'
    lines = [line for line in text.splitlines() if line.startswith('error: ')]
    fine = (code, len(lines)) == (2, 1) or may_fit and (code, len(lines)) == (0, 0)
    return None if fine else f'exit code {code}, {len(lines)} lines'


def cases(folder: Path) -> Iterator[tuple[str, list[object], Callable[[], object]]]:
    """Title, command and what comes before it, in the child."""
    for i, (name, prepare) in enumerate(CASES.items()):
        work = folder / f'train {i}/above/work'
        work.parents[1].mkdir()
        yield f'train: {name}', train(folder, work), functools.partial(prepare, work)
        for command, words in OUTPUTS.items():
            work = folder / f'{command} {i}/above/work'
            work.parents[1].mkdir()
            target = work if name.startswith(('a file', 'below')) else work / 'out'
            filled = [word.replace('TARGET', str(target)).replace('IMAGES', str(folder / 'images'))
                      for word in words]
            name_of_file = Path(next(word for word in filled if str(target) in word))
            where = name_of_file if name.startswith('a file') else work
            yield f'{command}: {name}', [command.split()[0], folder / 'good/epoch_4.pth', *filled
                                         ], functools.partial(prepare, where)
    for name in LATER:
        work = folder / name / 'work'
        yield (f'train, then {name}', train(folder, work, f"[dict(type='mmengine.Befalls', what="
                                            f'{name!r})]'),
               functools.partial(disk('5m'), work) if name in ('read-only', 'filled up') else int)


def walk(only: list[str]) -> int:
    """Prints what became of each; gives the number of faults."""
    faults = done = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / 'images')
        code, text = run(train(folder, folder / 'good'), int)
        assert code == 0, text
        for title, words, before in cases(folder):
            if any(word in title for word in only):
                code, text = run(words, before)
                if 'CalledProcessError' in text:
                    print(f'{"left out: no mounting":26} {title}')
                    continue
                wrong = problem(code, text, not title.startswith('train'))
                line = text.strip().rpartition('error: ')[2] if not wrong else text[-700:]
                print(f'{"FAULT: " + wrong if wrong else "ok":26} {title:44} '
                      f'{line.replace(name, "") if code or wrong else "fits"}', flush=True)
                done, faults = done + 1, faults + bool(wrong)
        assert is_whole(folder / 'good/epoch_4.pth')
    print(f'{done} cases, {faults} faults')
    return faults


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', nargs='+', default=[''], help='only those with such a word')
    sys.exit(bool(walk(parser.parse_args().only)))
