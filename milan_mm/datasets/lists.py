# SPDX-License-Identifier: Apache-2.0
"""Images that a file lists: a table with a column of paths, and perhaps one of labels."""
import csv
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import MilanError
from ..registry import DATASETS
from ..wording import printable, some_of
from .keyed_images import KeyedImages

LISTS = ('.csv', '.tsv', '.json', '.jsonl', '.parquet', '.txt')
_PATHS = ('path', 'image', 'image_path', 'img_path', 'file', 'file_name', 'filename', 'filepath')
_LABELS = ('label', 'class', 'category', 'gt_label')


@DATASETS.register_module()
class ImageList(KeyedImages):
    """Every image that a file lists; see also :class:`KeyedImages`.

    CSV and TSV with a line of column names, JSON (a list of paths or of objects), JSON lines,
    Parquet, or text with a path a line. A column of Parquet may hold the images themselves, as
    Hugging Face's datasets do.

    Args:
        data_root: the file; its relative paths are relative to its folder.
        pipeline: transforms, the first of them :class:`LoadPILImage`.
        with_label: whether each sample gets ``gt_label`` from the column of labels; these are names
            of classes, or whole numbers.
        classes_from: another list whose classes number the labels, beside ``data_root`` or with its
            whole path; None for its own.
        columns: names of the columns of paths and labels; None for the usual ones.
        **kwargs: as of ``BaseDataset``.

    Raises:
        MilanError: if the file is missing or no such table, or a class not among those given.
    """

    def __init__(self, data_root: str | Path, pipeline: Sequence[dict | Callable] = (),
                 with_label: bool = False, classes_from: str | None = None,
                 columns: tuple[str, str] | None = None, **kwargs: Any) -> None:
        self.with_label, self.classes_from, self.columns = with_label, classes_from, columns
        super().__init__(data_root=str(data_root), pipeline=list(pipeline),
                         **{'data_prefix': dict(img_path=''), **kwargs})

    def load_data_list(self) -> list[dict]:
        root = Path(self.data_root).expanduser()
        rows = read_list(root, self.columns, self.with_label)
        if not self.with_label:
            return [row for row, _ in rows]
        classes = self._metainfo.get('classes')
        if not classes and self.classes_from:
            classes = list_classes(root.parent / self.classes_from, self.columns)
        classes = self._metainfo['classes'] = tuple(classes or _classes(rows))
        labels = {name: i for i, name in enumerate(classes)}
        strange = next((name for _, name in rows if name not in labels), None)
        if strange is not None:
            raise MilanError(f'{root} has the class {strange}, which is not among the '
                             f'{len(classes)} classes of the training set: {some_of(classes)}')
        return [dict(row, gt_label=labels[name]) for row, name in rows]


def list_classes(path: Path, columns: tuple[str, str] | None = None) -> tuple[str, ...]:
    """The classes of a list, in the order of labels: numbers by value, names by the alphabet."""
    return _classes(read_list(path, columns, True))


def read_list(path: Path, columns: tuple[str, str] | None = None,
              with_label: bool = False) -> list[tuple[dict, str]]:
    """The rows of a list: what is known of an image, ``img_path`` at least, and its label or ''.

    Raises:
        MilanError: if there is no such file, no row, no such column, or the first image is missing.
    """
    if not path.is_file():
        raise MilanError(f'no such list of images: {printable(path)}')
    try:
        rows = list(_rows(path))
    except (UnicodeError, ValueError, csv.Error, OSError) as error:
        raise MilanError(f'{printable(path)} cannot be read as {path.suffix[1:]}: '
                         f'{type(error).__name__}: {error}') from error
    if not rows:
        raise MilanError(f'{printable(path)} lists no image')
    place = _column(path, rows[0], columns[0] if columns else None, _PATHS, 'paths')
    label = _column(path, rows[0], columns[1] if columns else None, _LABELS,
                    'labels') if with_label else None
    found = []
    for number, row in enumerate(rows, 1):
        value, name = row.get(place), '' if label is None else row.get(label)
        if not value or name is None or (label and not str(name).strip()):
            raise MilanError(f'{printable(path)}, image {number}, has no {place}' + (
                f' or no {label}' if label else '') + f': {some_of(list(row.items()))}')
        found.append((_entry(path, number, value), str(name)))
    first = found[0][0]
    if 'img_bytes' not in first and not os.path.exists(first['img_path']):
        raise MilanError(f'{printable(path)} lists {first["img_path"]}, which is not there: '
                         'relative paths are relative to the folder of the list')
    return found


def _entry(path: Path, number: int, value: Any) -> dict:
    if isinstance(value, (bytes, dict)):  # Hugging Face: dict(bytes, path)
        content = value if isinstance(value, bytes) else value.get('bytes')
        name = None if isinstance(value, bytes) else value.get('path')
        if content:
            return dict(img_path=os.path.join(str(path), str(name or number)), img_bytes=content)
        value = name
    return dict(img_path=os.path.join(str(path.parent), os.path.expanduser(str(value))))


def _column(path: Path, row: dict, asked: str | None, usual: Sequence[str], what: str) -> str:
    lower = {str(key).lower(): key for key in row}
    for name in [asked.lower()] if asked else usual:
        if name in lower:
            return lower[name]
    raise MilanError(f'{printable(path)} has no column of {what}: expected '
                     f'{asked or some_of(usual, 9)}, got {some_of(list(row), 9)}')


def _rows(path: Path) -> Iterable[dict]:
    kind = path.suffix.lower()
    if kind == '.parquet':
        return _parquet(path)
    with open(path, encoding='utf-8-sig', newline='' if kind in ('.csv', '.tsv') else None) as file:
        if kind in ('.csv', '.tsv'):
            return list(csv.DictReader(file, delimiter=',' if kind == '.csv' else '\t'))
        if kind == '.txt':
            values: list[Any] = [line.rstrip('\n') for line in file if line.strip()]
        elif kind == '.jsonl':
            values = [json.loads(line) for line in file if line.strip()]
        else:
            values = json.load(file)
    if not isinstance(values, list) or not all(isinstance(v, (str, dict)) for v in values):
        raise ValueError('expected a list of paths, or of objects with a path each')
    return [dict(path=value) if isinstance(value, str) else value for value in values]


def _parquet(path: Path) -> list[dict]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MilanError(f'{printable(path)}: Parquet needs pyarrow; pip install '
                         "'milan_mm[parquet]'") from error
    return pyarrow.parquet.read_table(path).to_pylist()


def _classes(rows: Sequence[tuple[dict, str]]) -> tuple[str, ...]:
    names = {name for _, name in rows}
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))
