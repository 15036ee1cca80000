# SPDX-License-Identifier: Apache-2.0
"""COCO's files and folders of label maps spoilt at random: trained on, or refused by one error.

    python tests/faults/fuzz_annotations.py [--count 500] [--seed 0]

What the check before a training lets pass is loaded as training and evaluation would load it, image
by image. A fault is another error than MilanError, an error of several lines, or ten seconds.
"""
import argparse
import contextlib
import copy
import io
import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import numpy as np  # noqa: E402
from faults.judging import at_most_a_minute, judged  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from PIL import Image  # noqa: E402
from test_annotations import SIZE, ade, build, coco, look  # noqa: E402

SECONDS = 10
VALUES = [
    None, True, False, 0, -1, 1, 2, 3, 1.5, 1e308, float('nan'), float('inf'), '', 'x', '1',
    '../..', '\0', 'a' * 300, [], {}, [1], [1, 2, 3, 4], [[1, 2]], [[[1, 2]]], {'a': 1},
    {'size': [40, 60], 'counts': [2400]}, {'size': [40, 60], 'counts': 'abc'},
    {'size': [40, 60], 'counts': ''}, {'size': [0, 0], 'counts': []}, [[1, 2, 3, 4, 5, 6]],
    [['a'] * 6], 10**30, '\ud800', [None] * 4, ['1', '2', '3', '4'], [5, 5, -3, 2], [1e30] * 4]
KEYS = ['bbox', 'segmentation', 'id', 'iscrowd', 'area', 'image_id', 'category_id', 'ignore',
        'file_name', 'width', 'name']


def _paths(value: Any, path: tuple = ()) -> Iterator[tuple]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else (
        enumerate(value) if isinstance(value, list) else ())
    for key, part in items:
        yield from _paths(part, (*path, key))


def spoil_json(content: dict, rng: random.Random) -> str:
    """COCO's content with values changed, removed and added, as text."""
    content = copy.deepcopy(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        *path, key = rng.choice(list(_paths(content)))
        part = content
        for step in path:
            part = part[step]
        how, value = rng.random(), copy.deepcopy(rng.choice(VALUES))
        if how < .6:
            part[key] = value
        elif how < .8:
            del part[key]
        elif isinstance(part, list):
            part.append(copy.deepcopy(rng.choice([*part, value])))
        else:
            part[rng.choice(KEYS)] = value
    if rng.random() < .3 and isinstance(content.get('annotations'), list):
        key, value = rng.choice(KEYS), rng.choice(VALUES)
        for entry in content['annotations']:
            if isinstance(entry, dict):
                entry[key] = copy.deepcopy(value)
    text = json.dumps(content)
    if rng.random() < .1:
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(['', ' ', '}', '"', '\0']) + text[at + rng.randrange(3):]
    return text


def spoil_maps(root: Path, rng: random.Random) -> None:
    """Some files removed, cut, made anew, doubled, turned into folders, pipes and links."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        path = rng.choice(sorted(p for p in root.rglob('*') if p.is_file()))
        how = rng.choice([_flip, _cut, _remake, _double, _special, _classes])
        how(path, root, rng)


def _flip(path: Path, root: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes() or b'x')
    for _ in range(rng.choice([1, 5, 50])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data)


def _cut(path: Path, root: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[:rng.randrange(path.stat().st_size + 1)])


def _remake(path: Path, root: Path, rng: random.Random) -> None:
    """Another mode, size or set of values."""
    mode = rng.choice(['L', 'P', 'RGB', 'RGBA', 'LA', 'I;16', 'I', 'F', '1', 'CMYK'])
    size = rng.choice([SIZE[::-1], SIZE[::-1], SIZE, (1, 1), (SIZE[1] + 1, SIZE[0])])
    values = np.random.default_rng(rng.randrange(1000)).integers(
        rng.choice([0, 254]), rng.choice([1, 2, 3, 256]) + 255, size) % 256
    if mode == 'I;16':
        image = Image.fromarray((values * rng.choice([1, 257])).astype(np.uint16))
    else:
        image = Image.fromarray(values.astype(np.uint8)).convert(mode)
    image.save(path, format='TIFF' if mode in ('F', 'CMYK') else 'PNG')


def _double(path: Path, root: Path, rng: random.Random) -> None:
    target = path.with_suffix(rng.choice(['.png', '.jpg', '.bmp', '.heic', '.JPG', '']))
    if target != path:
        shutil.copy(path, target)


def _special(path: Path, root: Path, rng: random.Random) -> None:
    path.unlink()
    how = rng.randrange(4)
    if how == 1:
        path.mkdir()
    elif how == 2:
        os.mkfifo(path)
    elif how == 3:
        path.symlink_to(rng.choice(['nowhere', str(path), '..']))


def _classes(path: Path, root: Path, rng: random.Random) -> None:
    (root / 'classes.txt').unlink(missing_ok=True)
    (root / 'classes.txt').write_bytes(rng.choice([
        b'', b'a', b'a\n\n\n', b'\xff\xfe', b'\xff\xfea', b'a\0b\0', b'a\na\n',
        b'ground\nsquare\nx\n', rng.randbytes(20)]))


def take(task: str, root: Path) -> tuple[str, str]:
    """What becomes of a folder: success, error or fault, and words."""
    def load() -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            cfg, _ = look(task, root)
            for loader in (cfg.train_dataloader, cfg.val_dataloader):
                data = build(loader)
                for i in range(len(data)):
                    assert data[i] is not None, 'an image that the check let pass cannot be loaded'
    return judged(load, SECONDS)


def fuzz(folder: Path, count: int, seed: int = 0,
         tell: Callable[[str], None] = lambda line: None) -> Counter:
    """Counts of success, error and fault; the two kinds take turns."""
    rng = random.Random(seed)
    coco(folder / 'coco')
    ade(folder / 'ade', suffix=lambda k: ('.png', '.jpg')[k % 2])
    found: Counter = Counter()
    for task, name in (('det', 'coco'), ('seg', 'ade')):  # imports what they need
        init_default_scope(dict(det='mmdet', seg='mmseg')[task])
        build(look(task, folder / name)[0].train_dataloader)
        shutil.rmtree(folder / name / 'work')
    for number in range(count):
        task = ('det', 'seg')[number % 2]
        init_default_scope(dict(det='mmdet', seg='mmseg')[task])
        root = folder / f'spoilt_{number}'
        shutil.copytree(folder / dict(det='coco', seg='ade')[task], root)
        if task == 'det':
            path = root / f'annotations/{rng.choice(["train", "val"])}.json'
            path.write_text(spoil_json(json.loads(path.read_text()), rng))
        else:
            with contextlib.suppress(OSError):
                spoil_maps(root, rng)
        outcome, words = take(task, root)
        found[outcome] += 1
        tell(f'{outcome:8}{number:4} {task} {words[-1500:]}')
        shutil.rmtree(root)
    return found


def walk() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--count', type=int, default=500)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, at_most_a_minute():
        found = fuzz(Path(name), args.count, args.seed, lambda line: print(line, flush=True))
    print(f'{sum(found.values())} data sets: {dict(found)}')
    return bool(found['fault'])


if __name__ == '__main__':
    from mmengine.logging import MMLogger
    MMLogger.get_instance('fuzz', log_level='ERROR')
    sys.exit(walk())
