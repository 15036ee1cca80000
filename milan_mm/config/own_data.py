# SPDX-License-Identifier: Apache-2.0
"""One's own data: the classes are read from it, and the model gets as many."""
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..datasets.checks.text import read_coco, read_names
from ..datasets.image_folder import class_names
from ..datasets.lists import list_classes
from ..errors import MilanError
from ..wording import some_of
from .annotations import DataCheck, look_at_sets
from .data_paths import EVALUATORS, LOADERS, datasets_of


def fill_num_classes(cfg: Config, check: DataCheck | None = None) -> tuple[str, ...]:
    """Looks through the data, see :class:`DataCheck`, and counts its classes.

    Sets every ``num_classes=None`` of a config to the number of classes in its training set.

    The classes are the sub-folders of a :class:`ImageFolder`, the categories of a COCO file, or
    the lines of ``classes.txt`` beside ADE20K's folders. Sets that name their classes get these.

    Args:
        cfg: changed in place; one that leaves nothing open is not touched.
        check: of this config, whose ``findings`` are to be kept.

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
    check = check or DataCheck(cfg)
    look_at_sets(cfg, check)
    classes = read_classes(sets[0])
    for part in places:
        part['num_classes'] = len(classes)
    for dataset in sets:
        dataset['metainfo'] = dict(dataset.get('metainfo') or {}, classes=classes)
    for path in _coco_files(cfg, sets):
        check_categories(path, classes)
    look_at_sets(cfg, check, classes)
    check.report()
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
        names = list(class_names(folder))
        expected = f'sub-folders of {folder}, one a class'
    elif kind == 'ImageList':
        names = list(list_classes(root, dataset.get('columns')))
        expected = f'a column of labels in {root}'
    elif 'Coco' in kind:
        names = _categories(root / dataset['ann_file'])
        expected = f'categories in {root / dataset["ann_file"]}'
    else:
        names = read_names(root / 'classes.txt')
        expected = f'{root}/classes.txt, a class a line in the order of the label maps\' values'
    if not names:
        raise MilanError(f'no classes found: expected {expected}')
    return tuple(names)


def _categories(path: Path) -> list[str]:
    try:
        return [c['name'] for c in read_coco(path)[0]['categories']]  # mmdet's labels in order
    except (KeyError, TypeError) as error:
        raise MilanError(f'{path} is no COCO file ({type(error).__name__}: {error}); expected JSON '
                         'with images, annotations and categories') from error


def _coco_files(cfg: Config, sets: list[dict]) -> list[Path]:
    """The annotation files there are, of data sets and of the metrics."""
    metrics = [metric for name in EVALUATORS
               for metric in _as_list(cfg.get(name)) if isinstance(metric, dict)]
    files = [part for part in (*sets, *metrics)
             if 'Coco' in part.get('type', '') and part.get('ann_file')]
    paths = [Path(part.get('data_root') or '').expanduser() / part['ann_file'] for part in files]
    return [path for path in dict.fromkeys(paths) if path.is_file()]


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def open_places(value: Any) -> Iterator[dict]:
    """Every part that says ``num_classes=None``."""
    if isinstance(value, dict):
        if 'num_classes' in value and value['num_classes'] is None:
            yield value
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from open_places(item)
