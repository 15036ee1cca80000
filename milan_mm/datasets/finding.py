# SPDX-License-Identifier: Apache-2.0
"""The images below a folder, and what else lies there that was perhaps meant as one."""
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from ..errors import MilanError
from ..wording import printable, some_of
from .decoding import SUFFIXES
from .listings import Listings

_OTHER_IMAGES = (
    '.avif', '.heic', '.heif', '.hif', '.jxl', '.jp2', '.j2k', '.jpx', '.psd', '.svg', '.eps',
    '.ppm', '.pgm', '.pnm', '.tga', '.exr', '.hdr', '.dcm', '.dng', '.cr2', '.cr3', '.nef', '.arw',
    '.raf', '.orf', '.rw2')


def find_images(root: Path, at_least_one: bool = False,
                suffixes: Sequence[str] = SUFFIXES) -> list[str]:
    """Paths of all images below ``root``, sorted, so that an index means the same everywhere.

    Each real folder is gone through once, however many links lead to it. Pipes, devices and
    sockets named like images, images of other kinds, and folders that cannot be read are left out,
    counted and named in the log.

    Args:
        root: the folder; links to folders are followed.
        at_least_one: stop at the first folder that holds any, to know whether there is one.
        suffixes: what names of images end in, in lower case.

    Raises:
        MilanError: if there is none.
    """
    if not root.is_dir():
        raise MilanError(f'no such folder: {printable(root)}. Give a folder of images '
                         '(--data-root DIR), sub-folders allowed')
    found: list[str] = []
    others: Counter[str] = Counter()
    irregular: list[str] = []
    closed: list[str] = []
    listings, endings = Listings(str(root)), tuple(suffixes)
    for folder, files, special in _names_by_folder(str(root), closed, listings):
        for name in files:
            low = name.lower()
            if low.endswith(endings):
                found.append(os.path.join(folder, name))
            elif low.endswith(_OTHER_IMAGES):
                others[os.path.splitext(low)[1]] += 1
        irregular += [os.path.join(folder, name) for name in special
                      if name.lower().endswith(endings)]
        if at_least_one and found:
            return sorted(found)
    listings.save()
    _tell(root, others, sorted(irregular), closed)
    if not found:
        raise MilanError(f'no image below {printable(root)}: expected files that end in '
                         f'{", ".join(suffixes)}' + (f'; found {_counts(others)}' if others
                                                     else ''))
    return sorted(found)


def files_by_folder(root: str, closed: list[str] | None = None) -> Iterator[list[os.DirEntry]]:
    """The files of each folder below another; each once, real folders before links.

    Args:
        root: the other.
        closed: receives the names of folders that cannot be read, and why; None for nobody.

    Yields:
        A folder's files, in the order of their names; names that begin with a dot are left out.
    """
    for _, entries, _ in _walk(root, closed, lambda folder, state: None):
        yield [entry for entry in entries if not _is_folder(entry)]


def _names_by_folder(root: str, closed: list[str], listings: Listings
                     ) -> Iterator[tuple[str, list[str], list[str]]]:
    """A folder, and the names of what may be files in it and of what is none; see above."""
    for folder, inside, state in _walk(root, closed, listings.of):
        if isinstance(inside, tuple):
            yield folder, inside[0], []
            continue
        files = [entry for entry in inside if not _is_folder(entry)]
        special = [entry.name for entry in files if _is_special(entry)]
        names = [entry.name for entry in files if entry.name not in special]
        if inside and not special and not any(entry.is_symlink() for entry in inside):
            listings.add(folder, state, names,
                         [entry.name for entry in inside if _is_folder(entry)])
        yield folder, names, special


def _walk(root: str, closed: list[str] | None,
          known: Callable) -> Iterator[tuple[str, Any, os.stat_result]]:
    """Each real folder once, what is in it, and its state from before it was read.

    What is in it are its entries, or what ``known`` gives for it.

    Args:
        root: where to begin.
        closed: see :func:`files_by_folder`.
        known: gives the names of files and folders, without links, or None.
    """
    seen, real, links = set[tuple[int, int]](), [root], list[str]()
    while real or links:
        folder = real.pop() if real else links.pop(0)
        try:
            state = os.stat(folder)
            if (state.st_dev, state.st_ino) in seen:
                continue
            inside = known(folder, state)
            if inside is None:
                with os.scandir(folder) as entries:
                    inside = sorted((e for e in entries if not e.name.startswith('.')),
                                    key=lambda entry: entry.name)
            elif not os.access(folder, os.R_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            if closed is not None:
                closed.append(f'{folder} ({error.strerror})')
            continue
        seen.add((state.st_dev, state.st_ino))
        if isinstance(inside, tuple):
            real += [os.path.join(folder, name) for name in reversed(inside[1])]
        else:
            folders = [entry for entry in inside if _is_folder(entry)]
            links += [entry.path for entry in folders if entry.is_symlink()]
            real += [entry.path for entry in reversed(folders) if not entry.is_symlink()]
        yield folder, inside, state


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself: a file that will not open
        return False


def is_file(entry: os.DirEntry) -> bool:
    """Whether it is a regular file, or a link to one; a link to itself is none."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _is_special(entry: os.DirEntry) -> bool:
    """Whether it is there and no regular file; a link to nothing is an image that is missing."""
    try:
        return not entry.is_file() and os.path.exists(entry.path)
    except OSError:
        return False


def _tell(root: Path, others: Counter[str], irregular: list[str], closed: list[str]) -> None:
    told = []
    if others:
        told.append(f'images of kinds that are not read here: {_counts(others)}; convert them '
                    'to PNG or JPEG')
    if irregular:
        told.append(f'what is no regular file (pipes, devices, sockets), {len(irregular)}: '
                    f'{some_of(irregular)}')
    if closed:
        told.append(f'folders that cannot be read, {len(closed)}: {some_of(closed)}')
    for words in told:
        print_log(f'left out below {printable(root)}: {words}', logger='current', level=30)


def _counts(others: Counter[str]) -> str:
    return ', '.join(f'{suffix} {count}' for suffix, count in others.most_common())
