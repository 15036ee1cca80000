# SPDX-License-Identifier: Apache-2.0
"""One's own data: the classes are read from it, and the model gets as many."""
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from PIL import Image

from ..datasets.decoding import FORMATS
from ..errors import MilanError
from ..wording import some_of
from .data_paths import LOADERS, datasets_of


def fill_num_classes(cfg: Config) -> tuple[str, ...]:
    """Sets every ``num_classes=None`` of a config to the number of classes in its training set.

    The classes are the sub-folders of a :class:`ImageFolder`, the categories of a COCO file, or
    the lines of ``classes.txt`` beside ADE20K's folders. Sets that name their classes get these.

    Args:
        cfg: changed in place; one that leaves nothing open is not touched.

    Returns:
        The classes; empty if nothing was open.

    Raises:
        MilanError: if they cannot be read, or a COCO file of another set lists others.
    """
    places = list(open_places((cfg.get('model'), cfg.get('data_preprocessor'))))
    if not places:
        return ()
    sets = [d for name in LOADERS for d in datasets_of((cfg.get(name) or {}).get('dataset'))]
    if not sets:
        raise MilanError('the config leaves num_classes open and has no data to count classes in')
    classes = read_classes(sets[0])
    for part in places:
        part['num_classes'] = len(classes)
    for dataset in sets:
        dataset['metainfo'] = dict(dataset.get('metainfo') or {}, classes=classes)
    for path in _coco_files(cfg, sets):
        check_categories(path, classes)
    for dataset in sets:
        check_label_maps(dataset, classes)
    return classes


def check_categories(path: Path, classes: tuple[str, ...]) -> None:
    """Compares the categories of a COCO file with the classes of the training set.

    mmdet numbers labels as a file lists its categories, each file on its own: with another order
    an evaluation would compare one class with another, and say nothing.

    Args:
        path: of a JSON file.
        classes: in the order of labels; categories that are not among them are left aside.

    Raises:
        MilanError: if one is missing or stands in another place.
    """
    names = tuple(name for name in _categories(path) if name in classes)
    if names == classes:
        return
    missing = [name for name in classes if name not in names]
    what = (f'lacks the category {missing[0]}' if missing else
            f'lists its categories in another order: {some_of(names)}')
    raise MilanError(
        f'{path} {what}. The training set has {some_of(classes)}, and labels are numbered by the '
        'order in a file. Write the same list "categories" into all files of a data set; the '
        'numbers (ids) may stay')


def check_label_maps(dataset: dict, classes: tuple[str, ...], look_at: int = 50) -> None:
    """Looks at some label maps of a segmentation set for values that no class has.

    In training such a value is an index error on a CPU and a dead device on CUDA.

    Args:
        dataset: config of the set; others than of label maps are passed over.
        classes: value i is class i; 255 is ignored.
        look_at: number of maps, evenly over the folder.

    Raises:
        MilanError: naming the first map with such a value.
    """
    prefix = dataset.get('data_prefix')
    folder = prefix.get('seg_map_path') if isinstance(prefix, dict) else None
    if not folder:
        return
    root = Path(dataset.get('data_root') or '').expanduser()
    maps = sorted((root / folder).rglob(f'*{dataset.get("seg_map_suffix", ".png")}'))
    shift = 1 if dataset.get('reduce_zero_label') else 0
    for path in maps[::max(1, len(maps) // look_at)]:
        with Image.open(path, formats=FORMATS) as file:
            values = np.unique(np.asarray(file))
        strange = [int(v) for v in values if v != 255 and v >= len(classes) + shift]
        if strange:
            raise MilanError(
                f'{path} has the value {strange[0]}, but there are {len(classes)} classes '
                f'({some_of(classes)}), values {shift} to {len(classes) - 1 + shift}; 255 is for '
                'pixels to be ignored. Mend the map or name the class in classes.txt')


def read_classes(dataset: dict) -> tuple[str, ...]:
    """Names of a set's classes in the order of their labels.

    Raises:
        MilanError: if there are fewer than one, or the file or folder is not there.
    """
    kind = dataset.get('type', '').rpartition('.')[2]
    root = Path(dataset.get('data_root') or '').expanduser()
    given = (dataset.get('metainfo') or {}).get('classes')
    if isinstance(given, str):
        raise MilanError(f'metainfo.classes is the text {given!r}; expected a list of names, such '
                         "as metainfo=dict(classes=('cat', 'dog'))")
    if given:
        return tuple(given)
    if kind == 'ImageFolder':
        folder = root / (dataset.get('data_prefix') or {}).get('img_path', '')
        names = _sub_folders(folder)
        expected = f'sub-folders of {folder}, one a class'
    elif 'Coco' in kind:
        names = _categories(root / dataset['ann_file'])
        expected = f'categories in {root / dataset["ann_file"]}'
    else:
        names = _lines(root / 'classes.txt')
        expected = f'{root}/classes.txt, a class a line in the order of the label maps\' values'
    if not names:
        raise MilanError(f'no classes found: expected {expected}')
    return tuple(names)


def _sub_folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise MilanError(f'no such folder: {folder}. Expected {folder}/<class>/<image>; give '
                         'another place with --data-root DIR')
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith('.'))


def _categories(path: Path) -> list[str]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        return [c['name'] for c in content['categories']]  # mmdet's labels are in this order
    except OSError as error:
        raise MilanError(f'no such annotation file: {path}. Give another place with --data-root '
                         'DIR, or other names with --cfg-options') from error
    except (ValueError, KeyError, TypeError) as error:
        raise MilanError(f'{path} is no COCO file ({type(error).__name__}: {error}); expected JSON '
                         'with images, annotations and categories') from error


def _coco_files(cfg: Config, sets: list[dict]) -> list[Path]:
    """The annotation files there are, of data sets and of the metrics."""
    metrics = [metric for name in ('val_evaluator', 'test_evaluator')
               for metric in _as_list(cfg.get(name)) if isinstance(metric, dict)]
    files = [part for part in (*sets, *metrics)
             if 'Coco' in part.get('type', '') and part.get('ann_file')]
    paths = [Path(part.get('data_root') or '').expanduser() / part['ann_file'] for part in files]
    return [path for path in dict.fromkeys(paths) if path.is_file()]


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise MilanError(f'{path} is missing: write one class a line, in the order of the label '
                         'maps\' values from 0')
    # A blank line between two names keeps its number; those at the end are nobody's.
    return [line.strip() for line in path.read_text(encoding='utf-8').rstrip().splitlines()]


def open_places(value: Any) -> Iterator[dict]:
    """Every part that says ``num_classes=None``."""
    if isinstance(value, dict):
        if 'num_classes' in value and value['num_classes'] is None:
            yield value
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from open_places(item)
