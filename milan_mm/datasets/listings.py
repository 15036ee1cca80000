# SPDX-License-Identifier: Apache-2.0
"""What a folder held when it was last looked into, believed as long as nothing in it changed.

A folder's time of change is that of its list of names: a file or folder added, removed or renamed
sets it. What is remembered of a folder counts only for that folder of that root (device, inode),
and only if it had not changed for two seconds when it was read, within which a second change could
leave the time as it is. Folders that hold links are always read, as a link's target may change.
"""
import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

_FOLDER = 'MILAN_MM_LISTINGS'  # of the environment, so that every process of a run shares them
_FORMAT = 1
_SETTLED = 2 * 10**9  # nanoseconds; FAT keeps even seconds


def keep_listings(folder: str | Path) -> None:
    """Has lists of large folders kept there from now on; '' for nowhere."""
    os.environ[_FOLDER] = os.path.abspath(folder) if folder else ''


class Listings:
    """Of one root.

    Args:
        root: as it was given; another spelling of it is another one.
    """

    def __init__(self, root: str) -> None:
        self.root, self.known, self.kept = os.path.abspath(root), dict[str, Any](), 0
        self.new: dict[str, list] = {}
        folder = os.environ.get(_FOLDER)
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        self.path = Path(folder) / f'.listing_{name}.json' if folder else None
        if self.path is None:
            return
        with contextlib.suppress(OSError, ValueError, RecursionError):
            content = json.loads(self.path.read_bytes())
            if isinstance(content, dict) and content.get('is') == [_FORMAT, self.root]:
                self.known = content['folders'] if isinstance(content['folders'], dict) else {}

    def of(self, folder: str, state: os.stat_result) -> tuple[list[str], list[str]] | None:
        """Names of a folder's files and of its folders; None if it has to be read."""
        entry = self.known.get(folder)
        if (not isinstance(entry, list) or entry[:-2] != self._stamp(state)
                or not all(isinstance(names, str) for names in entry[-2:])):
            return None
        self.new[folder], self.kept = entry, self.kept + 1
        files, folders = (names.split('/') if names else [] for names in entry[-2:])
        return files, folders

    def add(self, folder: str, state: os.stat_result, files: list[str],
            folders: list[str]) -> None:
        """Remembers what a folder without links holds; no name has a slash in it."""
        if time.time_ns() - state.st_mtime_ns > _SETTLED:
            self.new[folder] = [*self._stamp(state), '/'.join(files), '/'.join(folders)]

    def save(self) -> None:
        """For the next time, where they may be written and anything is new."""
        if self.path is None or self.kept == len(self.new) == len(self.known):
            return
        temporary = self.path.with_name(f'{self.path.name}.{os.getpid()}')
        content = json.dumps({'is': [_FORMAT, self.root], 'folders': self.new})
        with contextlib.suppress(OSError):  # a folder that may be read only, or a full disk
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_text(content, encoding='ascii')
                os.replace(temporary, self.path)
            finally:
                temporary.unlink(missing_ok=True)

    @staticmethod
    def _stamp(state: os.stat_result) -> list[int]:
        return [state.st_dev, state.st_ino, state.st_mtime_ns, state.st_ctime_ns]
