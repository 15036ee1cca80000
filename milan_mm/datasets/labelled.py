# SPDX-License-Identifier: Apache-2.0
"""Which folders a user means by one: its splits, or the classes in it."""
from collections.abc import Collection, Sequence
from pathlib import Path

from mmengine.logging import print_log

from ..errors import MilanError

SPLITS = ('train', 'val', 'test')


def splits_in(root: str | Path) -> dict[str, Path]:
    """The folders ``train``, ``val`` and ``test`` below ``root`` that hold class folders.

    A folder of that name with images directly in it is a class.
    """
    folders = {name: Path(root).expanduser() / name for name in SPLITS}
    return {name: folder for name, folder in folders.items() if folder.is_dir() and any(
        inner.is_dir() and not inner.name.startswith('.') for inner in folder.iterdir())}


def commonest_share(counts: Sequence[int]) -> float:
    """What naming always the commonest class gets right, in percent: the chance level.

    Args:
        counts: images of each class.
    """
    return 100.0 * max(counts) / sum(counts)


def refuse_splits(classes: Collection[str], root: Path) -> None:
    """Raises MilanError if what would be the classes of ``root`` are nothing but its splits."""
    if classes and set(classes) <= set(splits_in(root)):
        raise MilanError(f'{root} has {", ".join(sorted(classes))} in it, which hold class folders '
                         f'and are no classes themselves; give {root / min(classes)}')


def find_splits(data: str | Path | None, gallery: str | Path | None = None,
                queries: str | Path | None = None) -> tuple[Path, Path]:
    """The folder whose labels are known, and the one to be classified; says which it took.

    Args:
        data: a folder with train and val or test in it, each ``<class>/<image>``; without such
            sub-folders it stands for the one of the others that is not given.
        gallery: the former by itself.
        queries: the latter.

    Raises:
        MilanError: if that does not make two folders.
    """
    root = Path(data).expanduser() if data else None
    if root is not None and not root.is_dir():
        raise MilanError(f'no such folder: {root}. --data is a folder with train/ and val/ or '
                         'test/ in it, each <class>/<images>')
    inside = splits_in(root) if root else {}
    known = Path(gallery).expanduser() if gallery else inside.get('train')
    asked = Path(queries).expanduser() if queries else inside.get('val', inside.get('test'))
    if root is not None and not inside:
        known, asked = (known or root, asked) if asked else (known, root)
    if known is None or asked is None:
        raise MilanError(
            f'{root or "nothing"} does not give both a gallery and queries: expected --data DIR '
            'with DIR/train and DIR/val or DIR/test, or --gallery DIR and --queries DIR')
    for folder in (known, asked):
        if not folder.is_dir():
            raise MilanError(f'no such folder: {folder}. Expected <class>/<images> in it')
    if inside:
        print_log(f'{root} has {", ".join(inside)}: the labels of {known} are known, the images '
                  f'of {asked} are classified', logger='current')
    return known, asked
