# SPDX-License-Identifier: Apache-2.0
"""The file that a ``file_name`` means, where it is not where it says."""
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

FOLDERS = 'folders in "file_name" that are not there, or are the images\' own'
SEPARATORS = '"\\" in "file_name" read as "/"'
LETTERS = '"file_name" in other letters (upper, lower case) than the file'


def find_files(names: Sequence[str], folder: Path) -> list[tuple[str, str] | None]:
    r"""The path of each name, and what had to be read otherwise ('' for nothing).

    A name is looked for as it stands, then below the folder above, with ``\`` as a separator,
    without its first folders, and in other letters. Two names never share a file that only one of
    them states.

    Args:
        names: relative to ``folder``.
        folder: of the images.
    """
    listing: dict[str, list[str]] = {}
    found = [_find(name, folder, listing) for name in names]
    times = Counter(item[0] for item in found if item)
    stated = Counter(names)
    # A file that several names lead to by guessing is anyone's.
    return [None if item and item[1] and times[item[0]] > 1 and stated[name] < times[item[0]]
            else item for name, item in zip(names, found)]


def _find(name: str, folder: Path, listing: dict[str, list[str]]) -> tuple[str, str] | None:
    if '\0' in name:
        return None
    if name and os.path.exists(path := os.path.join(folder, name)):
        return path, ''
    plain = name.replace('\\', '/')
    changed = SEPARATORS if plain != name else ''
    parts = [part for part in plain.split('/') if part not in ('', '.')]
    for start in range(len(parts)):
        path = os.path.join(folder, *parts[start:])
        if os.path.exists(path):
            return path, changed or FOLDERS
        if start == 0 and os.path.exists(path := os.path.join(folder.parent, *parts)):
            return path, changed or FOLDERS
    if not parts:
        return None
    if not listing:
        listing[''] = []
        for inner in os.scandir(folder):
            listing.setdefault(inner.name.lower(), []).append(inner.path)
    alike = listing.get(parts[-1].lower(), [])
    return (alike[0], LETTERS) if len(alike) == 1 else None
