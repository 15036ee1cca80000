# SPDX-License-Identifier: Apache-2.0
"""A folder of images, with or without classes."""
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import MilanError
from ..registry import DATASETS
from ..wording import some_of
from .decoding import SUFFIXES
from .finding import find_images
from .keyed_images import KeyedImages
from .labelled import refuse_splits


@DATASETS.register_module()
class ImageFolder(KeyedImages):
    """Every image below a folder, sub-folders included; see also :class:`KeyedImages`.

    Args:
        data_root: the folder.
        data_prefix: ``img_path`` is a part of the path below ``data_root``, such as 'train'.
        pipeline: transforms, the first of them :class:`LoadPILImage`.
        with_label: whether the first level of sub-folders are classes, as in ImageNet. Each
            sample then has ``gt_label``, and ``metainfo['classes']`` the names; names given in
            ``metainfo`` fix the order of labels.
        classes_from: a part of the path below ``data_root`` whose classes number the labels, such
            as 'train' for a test set that may lack some of them; None for its own.
        test_mode: an unreadable image gives None instead of another image.
        suffixes: what names of images end in.
        **kwargs: as of ``BaseDataset``.

    Raises:
        MilanError: if the folder is missing, holds no image, or a class not among those given.
    """

    def __init__(self,
                 data_root: str | Path,
                 pipeline: Sequence[dict | Callable] = (),
                 with_label: bool = False,
                 classes_from: str | None = None,
                 test_mode: bool = False,
                 suffixes: Sequence[str] = SUFFIXES,
                 **kwargs: Any) -> None:
        self.with_label, self.classes_from, self.suffixes = with_label, classes_from, suffixes
        super().__init__(
            ann_file='',
            data_root=str(data_root),
            pipeline=list(pipeline),
            test_mode=test_mode,
            **kwargs)

    def load_data_list(self) -> list[dict]:
        root = Path(self.data_prefix['img_path'] or self.data_root).expanduser()
        paths = find_images(root, suffixes=self.suffixes)
        if not self.with_label:
            return [dict(img_path=path) for path in paths]
        parts = [os.path.relpath(path, root).split(os.sep) for path in paths]
        loose = [path for path, p in zip(paths, parts) if len(p) == 1]
        if loose:
            raise MilanError(f'{root} holds images outside any class folder, such as '
                             f'{loose[0]}; expected {root}/<class>/<image>')
        classes = self._metainfo['classes'] = self.read_classes({p[0] for p in parts}, root)
        labels = {name: i for i, name in enumerate(classes)}
        return [dict(img_path=path, gt_label=labels[p[0]]) for path, p in zip(paths, parts)]

    def read_classes(self, own: set[str], root: Path) -> tuple[str, ...]:
        """Names in the order of labels; ``own`` are those of the images found below ``root``."""
        classes, source = self._metainfo.get('classes'), Path('given')
        if not classes and self.classes_from is None:
            refuse_splits(own, root)
            return tuple(sorted(own))
        if not classes and self.classes_from is not None:
            source = Path(self.data_root).expanduser() / self.classes_from
            classes = class_names(source)
        strange = sorted(own.difference(classes))
        if strange:
            raise MilanError(f'{root} has the class {strange[0]}, which is not among the '
                             f'{len(classes)} classes of the training set ({source}): '
                             f'{some_of(classes)}. Rename or remove its folder')
        return tuple(classes)


def class_names(root: Path) -> tuple[str, ...]:
    """Names of the folders directly below ``root`` that hold images, sorted.

    Raises:
        MilanError: if there is none.
    """
    if not root.is_dir():
        raise MilanError(f'no such folder: {root}, whose folders name the classes; expected '
                         f'{root}/<class>/<image>')
    names = [entry.name for entry in root.iterdir()
             if entry.is_dir() and not entry.name.startswith('.') and _holds_images(entry)]
    if not names:
        raise MilanError(f'{root} has no folder with images; expected {root}/<class>/<image>')
    return tuple(sorted(names))


def _holds_images(folder: Path) -> bool:
    try:
        return bool(find_images(folder, at_least_one=True))
    except MilanError:
        return False
