# SPDX-License-Identifier: Apache-2.0
"""What is learned of many files, remembered until a file changes."""
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from ...errors import MilanError
from ...packages import __version__
from ...progress import Progress
from ...wording import printable
from ..decoding import opened

ORIENTATION = 0x0112  # the EXIF tag
_ENDS = dict(PNG=b'IEND', JPEG=b'\xff\xd9')
_THREADS = 4  # reading waits for the disk more than it computes


class Facts:
    """Facts of files by their path, size and time of change.

    Args:
        known: of an earlier look, as :attr:`known` was then; anything else is forgotten.
        log: receives the lines of progress; by default they go to stderr.
    """

    def __init__(self, known: Any = None, log: Callable[[str], None] | None = None) -> None:
        self.known: dict[str, list] = known if isinstance(known, dict) else {}
        self.log = log
        self.looked = 0

    def of(self, paths: Sequence[str], read: Callable[[str], dict],
           what: str) -> Iterator[dict]:
        """``read(path)`` of each file, remembered; ``dict(problem=...)`` where it cannot be read.

        Args:
            paths: of the files.
            read: gives plain values that JSON can hold.
            what: is looked through, for the line of progress.
        """
        progress = Progress(what, len(paths), self.log)
        with ThreadPoolExecutor(_THREADS) as pool:
            for facts in pool.map(lambda path: self._of(path, read), paths):
                progress.update()
                yield facts
        progress.close()

    def _of(self, path: str, read: Callable[[str], dict]) -> dict:
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                return dict(problem='is no regular file')
            key = f'{__version__} {read.__name__} {path}'
            stamp = [status.st_size, status.st_mtime_ns]
            known = self.known.get(key)
            if isinstance(known, list) and known[:2] == stamp and isinstance(known[-1], dict):
                return known[-1]
            self.looked += 1
            self.known[key] = [*stamp, read(path)]
            return self.known[key][-1]
        except MemoryError:
            raise
        except Exception as error:
            words = str(error)
            reason = words.removeprefix(f'cannot decode {printable(path)}: ')
            if reason != words:
                words = f'cannot be read ({reason})'
            elif not isinstance(error, MilanError):
                words = f'cannot be read ({type(error).__name__}: {words.partition(chr(10))[0]})'
            return dict(problem=words.replace(f' {path!r}', '').replace(path, 'the file'))


def _tail(path: str, length: int = 64) -> bytes:
    with open(path, 'rb') as file:
        file.seek(-min(length, os.path.getsize(path)), os.SEEK_END)
        return file.read()


def image_header(path: str) -> dict:
    """Size upright, size as stored, and whether an EXIF turn shows in no size, of an image.

    Its pixels are decoded only where the file does not end as a whole one does.
    """
    with opened(path) as image:
        end = _ENDS.get(image.format or '')
        if end and end not in _tail(path):
            image.load()
        # Not the format's own method: PNG's decodes the image, to look behind its pixels too.
        turn = Image.Image.getexif(image).get(ORIENTATION, 1)
        stored = list(image.size)
    quarter = turn in (5, 6, 7, 8)
    hidden = turn in (2, 3, 4) or quarter and stored[0] == stored[1]
    return dict(size=stored[::-1] if quarter else stored, stored=stored, hidden_turn=hidden)
