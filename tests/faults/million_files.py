# SPDX-License-Identifier: Apache-2.0
"""How long a training waits for its list of images where these are a million.

    python tests/faults/million_files.py [--files 1000000] [--dir DIR]

Makes hard links to one image in nested folders with spaces and letters of many scripts, and times
the list: new, from the cache in a work folder, and after a change, which the cache must notice.
Then the data set as training builds it. Above --seconds (30) it is a fault.
"""
import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from PIL import Image  # noqa: E402

from milan_mm.datasets import ImageFolder  # noqa: E402
from milan_mm.datasets.finding import find_images  # noqa: E402
from milan_mm.datasets.listings import keep_listings  # noqa: E402

A_FOLDER, A_FILE = 1000, 60000  # file systems allow 65,000 links to a file


def make(root: Path, files: int) -> None:
    """The folders and their links."""
    for number in range(0, files, A_FOLDER):
        part = number // A_FOLDER
        folder = root / f'группа {part % 10}' / f'写真 {part // 10 % 10}' / f'dossier é {part}'
        folder.mkdir(parents=True)
        for i in range(number, min(files, number + A_FOLDER)):
            if i % A_FILE == 0:
                source = root / f'source {i}.png'
                Image.new('RGB', (8, 8), (200, 30, 30)).save(source)
            os.link(source, folder / f'image {i} ü.png')


@contextlib.contextmanager
def timed(what: str, times: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    times[what] = time.perf_counter() - start
    print(f'{what:34}{times[what]:8.2f} s', flush=True)


def walk() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--files', type=int, default=1_000_000)
    parser.add_argument('--dir', help='folder to make them in')
    parser.add_argument('--seconds', type=float, default=30)
    args = parser.parse_args()
    times: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        root = Path(name) / 'images'
        root.mkdir()
        with timed('making them (not counted)', times):
            make(root, args.files)
        del times['making them (not counted)']
        time.sleep(3)  # what changed just now is not trusted to the cache
        keep_listings(Path(name) / 'work')
        with timed('list', times):
            found = find_images(root)
        with timed('list from the cache', times):
            again = find_images(root)
        changed = next(path for path in root.rglob('*') if path.is_dir() and path.name[0] == 'd')
        (changed / 'more.png').write_bytes(b'')
        with timed('list after a change', times):
            more = find_images(root)
        faults = (again != found) + (set(more) - set(found) != {str(changed / 'more.png')})
        with timed('data set, as training builds it', times):
            data = ImageFolder(root)
        faults += len(data) != len(more)
    slow = [what for what, seconds in times.items() if seconds > args.seconds]
    print(f'{len(found)} images, {faults} faults; above {args.seconds:g} s: {slow or "none"}')
    return bool(faults or slow)


if __name__ == '__main__':
    sys.exit(walk())
