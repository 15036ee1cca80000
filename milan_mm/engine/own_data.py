# SPDX-License-Identifier: Apache-2.0
"""One's own data: the classes are read from it, and the model gets as many."""
import json
from pathlib import Path
from typing import Any, Iterator, List, Tuple

from mmengine.config import Config

from ..errors import MilanError
from .data_paths import LOADERS, datasets_of


def fill_num_classes(cfg: Config) -> Tuple[str, ...]:
    """Sets every ``num_classes=None`` of a config to the number of classes in its training set.

    The classes are the sub-folders of a :class:`PictureFolder`, the categories of a COCO file, or
    the lines of ``classes.txt`` beside ADE20K's folders. Sets that name their classes get these.

    Args:
        cfg: changed in place; one that leaves nothing open is not touched.

    Returns:
        The classes; empty if nothing was open.

    Raises:
        MilanError: if they cannot be read.
    """
    places = list(_open_places((cfg.get('model'), cfg.get('data_preprocessor'))))
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
    return classes


def read_classes(dataset: dict) -> Tuple[str, ...]:
    """Names of a set's classes in the order of their labels.

    Raises:
        MilanError: if there are fewer than one, or the file or folder is not there.
    """
    kind = dataset.get('type', '').rpartition('.')[2]
    root = Path(dataset.get('data_root') or '').expanduser()
    given = (dataset.get('metainfo') or {}).get('classes')
    if given:
        return tuple(given)
    if kind == 'PictureFolder':
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


def _sub_folders(folder: Path) -> List[str]:
    if not folder.is_dir():
        raise MilanError(f'no such folder: {folder}. Expected {folder}/<class>/<picture>; give '
                         'another place with --data-root DIR')
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith('.'))


def _categories(path: Path) -> List[str]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        return [c['name'] for c in sorted(content['categories'], key=lambda c: c['id'])]
    except OSError as error:
        raise MilanError(f'no such annotation file: {path}. Give another place with --data-root '
                         'DIR, or other names with --cfg-options') from error
    except (ValueError, KeyError, TypeError) as error:
        raise MilanError(f'{path} is no COCO file ({type(error).__name__}: {error}); expected JSON '
                         'with images, annotations and categories') from error


def _lines(path: Path) -> List[str]:
    if not path.is_file():
        raise MilanError(f'{path} is missing: write one class a line, in the order of the label '
                         'maps\' values from 0')
    return [line.strip() for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]


def _open_places(value: Any) -> Iterator[dict]:
    """Every part that says ``num_classes=None``."""
    if isinstance(value, dict):
        if 'num_classes' in value and value['num_classes'] is None:
            yield value
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _open_places(item)
