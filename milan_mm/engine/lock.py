# SPDX-License-Identifier: Apache-2.0
"""One training at a time in a work folder."""
import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from ..errors import MilanError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

_RANKS = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')


@contextlib.contextmanager
def only_training_in(work_dir: str | Path, launcher: str = 'none') -> Iterator[None]:
    """Makes the folder, and keeps other trainings out of it while within.

    The first of several processes does so. What it holds is a lock of the operating system, which
    ends with the process, however that ends, and is not handed on to the workers it forks. A file
    system without locks keeps nobody out.

    Raises:
        MilanError: if another training writes there, or the folder cannot be made or written to.
    """
    if os.environ.get(_RANKS.get(launcher, ''), '0') != '0':
        yield
        return
    path = Path(work_dir).expanduser() / '.lock'
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open('a+', encoding='utf-8', errors='replace')
    except OSError as error:
        raise MilanError(f'{path.parent} can be no work folder: {error.strerror} '
                         f'({error.filename}); give another --work-dir') from error
    with file:
        if fcntl is not None:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                file.seek(0)
                raise MilanError(
                    f'{path.parent} is in use: {file.read(200).strip() or "another training"} '
                    'writes to it. Wait until it ends, or give another --work-dir') from None
            except OSError:
                pass  # a file system without locks
        with contextlib.suppress(OSError):  # of a full disk; it is for people only
            file.truncate(0)
            file.write(f'the training of process {os.getpid()} on {platform.node()}\n')
            file.flush()
        yield
