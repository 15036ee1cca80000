# SPDX-License-Identifier: Apache-2.0
"""Steps that are done once: each leaves a note, by which a later call knows it and its settings."""
import contextlib
import fcntl
import hashlib
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..checkpoints.io import write_atomically
from ..errors import MilanError


class StepNotPossibleError(MilanError):
    """A step that what was given does not allow; it is noted, and others go on."""


class StepStoppedError(MilanError):
    """A step that was ended from outside, which is no failure of it."""


class Once(NamedTuple):
    """Something to do once.

    Attributes:
        note: file that tells of it.
        settings: all that decides what it makes; with others it is not the same step.
        makes: what is there when it is done.
        folder: removed before the step begins with other settings than before.
    """
    note: Path
    settings: dict[str, Any]
    makes: tuple[Path, ...] = ()
    folder: Path | None = None

    @property
    def key(self) -> str:
        """Of the settings."""
        text = json.dumps(self.settings, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def read(self) -> dict[str, Any]:
        """The note; empty if there is none, or if it is of other settings."""
        note = read_json(self.note)
        return note if note.get('key') == self.key else {}

    @property
    def done(self) -> bool:
        """Whether it is finished with these settings, and what it made still there."""
        return 'seconds' in self.read() and all(path.exists() for path in self.makes)

    def differences(self) -> dict[str, str]:
        """In which settings it was finished instead of these, as 'seed 0, now 1' by their names."""
        note, now = read_json(self.note), json.loads(json.dumps(self.settings, default=str))
        before = note['settings'] if 'seconds' in note else now
        return {name: f'{name} {before.get(name)}, now {now.get(name)}'
                for name in dict(before, **now) if before.get(name) != now.get(name)}

    def attempt(self, work: Callable[[], Any]) -> Any:
        """Does it and notes what ``work`` gives; a failure is noted too.

        Raises:
            MilanError: of ``work``.
        """
        if not self.read() and self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._write()
        start = time.time()
        try:
            result = work()
        except StepNotPossibleError as reason:
            self._write(seconds=time.time() - start, skipped=str(reason))
            raise
        except StepStoppedError:
            raise
        except MilanError as error:
            self._write(failed=str(error))
            raise
        self._write(seconds=time.time() - start, result=result)
        return result

    def forget(self) -> None:
        """It has to be done again."""
        self.note.unlink(missing_ok=True)

    def _write(self, **content: Any) -> None:
        if 'seconds' in content:
            content['seconds'] = round(content['seconds'], 1)
        text = json.dumps(dict(key=self.key, settings=self.settings, **content), indent=1,
                          default=str)
        self.note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.note, lambda path: path.write_text(text, encoding='utf-8'))


@contextlib.contextmanager
def held(path: Path) -> Iterator[int]:
    """A lock for a whole folder; gives its descriptor, which tools that are started hold too.

    So work that was killed, and whose tools still run, is not started over beside them. Within it
    a polite kill is what Ctrl-C is, so that it ends the tools as well.

    Raises:
        MilanError: if it is held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w') as file, _killed_as_interrupted():
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise MilanError(f'another process is at work in this folder ({path} is locked): wait '
                             'for it, or stop it with the trainings it has started') from error
        yield file.fileno()


@contextlib.contextmanager
def _killed_as_interrupted() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def read_json(path: Path) -> dict[str, Any]:
    """What a file holds; empty if there is none or it is damaged."""
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
