# SPDX-License-Identifier: Apache-2.0
"""Where the configs, studies, demo data and tools that come with the package lie.

A wheel has them in ``milan_mm/.mim``, as mmpretrain has; a clone one folder above the code.
"""
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_PREFIX = 'milan_mm::'
#: Has configs/, studies/, demo/ and tools/ in it.
RESOURCES = _PACKAGE / '.mim' if (_PACKAGE / '.mim').is_dir() else _PACKAGE.parent


def locate(path: str | Path, folder: str = 'configs') -> Path:
    """The file that a path names on a command line or in a study.

    ``milan_mm::PATH`` is relative to the ``folder`` that comes with the package. Any other path is
    taken as it stands; if nothing is there, as relative to ``RESOURCES``, then to the ``folder``.

    Args:
        path: what the user wrote.
        folder: ``'configs'``, ``'studies'``, ``'demo'`` or ``'tools'``.

    Returns:
        The path of the file, or what the user wrote where there is none.
    """
    if str(path).startswith(_PREFIX):
        return RESOURCES / folder / str(path).removeprefix(_PREFIX)
    path = Path(path).expanduser()
    places = (path, RESOURCES / path, RESOURCES / folder / path)
    return next((place for place in places if place.is_file()), path)
