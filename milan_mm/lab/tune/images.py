# SPDX-License-Identifier: Apache-2.0
"""Which images are trained on and which measure, by one fixed split."""
import csv
import hashlib
import io
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...checkpoints.io import write_atomically
from ...config.sources import open_source
from ...datasets import ImageFolder
from ...datasets.labelled import find_splits, splits_in
from ...errors import MilanError

QUERIES = 0.25  # of a labelled folder without splits
LEAST = 40  # images that measure; with fewer, one is worth more than two points


class Split(NamedTuple):
    """Paths, all absolute.

    Attributes:
        train: of the images that every run is trained on.
        queries: (path, class) of the images that measure; without labels the class is ''.
        gallery: (path, class) of the labelled neighbours; empty without labels.
        words: how it was split, for people.
    """
    train: list[str]
    queries: list[tuple[str, str]]
    gallery: list[tuple[str, str]]
    words: str

    @property
    def key(self) -> str:
        """Of all its paths and classes."""
        return hashlib.sha256(repr(self[:3]).encode('utf-8', 'replace')).hexdigest()[:16]


def split_images(data_root: str, labels: str | None) -> Split:
    """Splits by a hash of the paths: what measures is the same in every call.

    The images of the queries, or without labels those held out, are taken out of training by
    their real path. A gallery may be trained on: no label is seen there.

    Raises:
        MilanError: if the folders hold too few images.
    """
    source = open_source(data_root)
    infos = [source.get_data_info(i) for i in range(len(source))]
    if not all(os.path.isfile(info.get('img_path', '')) for info in infos[:1] + infos[-1:]):
        raise MilanError(f'{data_root}: tune draws from images that are files of their own; give '
                         'a folder of images, or a list of paths')
    paths = [os.path.abspath(info['img_path']) for info in infos]
    if labels:
        gallery, queries, words = _labelled(Path(labels).expanduser())
    else:
        ranked = sorted(paths, key=lambda path: _rank(os.path.relpath(path, data_root)))
        held = ranked[:min(1000, max(LEAST, len(paths) // 10))]
        gallery, queries = [], [(path, '') for path in held]
        words = f'{len(held)} of {len(paths)} images are held out'
    if len(queries) < LEAST:
        raise MilanError(f'{labels}: {len(queries)} images are left to measure with; at least '
                         f'{LEAST} are needed to tell one choice from another')
    hidden = {os.path.realpath(path) for path, _ in queries}
    train = [path for path in paths if os.path.realpath(path) not in hidden]
    if len(train) < LEAST:
        raise MilanError(f'{data_root} has {len(paths)} images, of which {len(train)} are left to '
                         f'train on; at least {2 * LEAST} are needed')
    words += f'; trained on {len(train)}' + (
        f' ({len(paths) - len(train)} that measure are taken out)' if labels else '')
    return Split(train, queries, gallery, words)


def write_list(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """A list that :class:`milan_mm.datasets.lists.ImageList` reads."""
    out = io.StringIO()
    csv.writer(out, lineterminator='\n').writerows([('path', 'label'), *rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    text = out.getvalue()
    try:
        content = text.encode()
    except UnicodeError as error:
        raise MilanError('a file name among the images is no UTF-8 text; rename it, since a list '
                         'cannot hold it') from error
    write_atomically(path, lambda part: part.write_bytes(content))
    return path


def _labelled(root: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]], str]:
    if splits_in(root):
        gallery, queries = (_rows(folder) for folder in find_splits(root))
        return gallery, queries, (f'{len(queries)} labelled images measure, {len(gallery)} are '
                                  'their neighbours, as the folder is split')
    by_class: dict[str, list[str]] = {}
    for path, name in _rows(root):
        by_class.setdefault(name, []).append(path)
    gallery, queries = [], []
    for name, paths in by_class.items():
        paths.sort(key=lambda path: _rank(os.path.relpath(path, root)))
        cut = round(QUERIES * len(paths))
        queries += [(path, name) for path in paths[:cut]]
        gallery += [(path, name) for path in paths[cut:]]
    return gallery, queries, (f'{len(queries)} of the labelled images measure, the other '
                              f'{len(gallery)} are their neighbours')


def _rows(folder: Path) -> list[tuple[str, str]]:
    images = ImageFolder(folder, with_label=True)
    classes = images.metainfo['classes']
    infos = [images.get_data_info(i) for i in range(len(images))]
    return [(os.path.abspath(info['img_path']), classes[info['gt_label']]) for info in infos]


def _rank(name: str) -> tuple[int, str]:
    return zlib.crc32(name.encode('utf-8', 'surrogateescape')), name
