# SPDX-License-Identifier: Apache-2.0
"""MILAN for the OpenMMLab family: importing this registers the components, scope ``milan_mm``."""
import importlib
import sys
from typing import Any

from .packages import __version__ as __version__


def _command_line_starts() -> bool:
    """Whether ``milan``, a file of ``tools/`` or ``python -m milan_mm`` is about to be parsed.

    PyTorch and mmpretrain take seconds to import, and a command's help needs neither: there,
    ``cli/main.py`` imports what is public once a command is to be run.
    """
    asked = getattr(sys.modules.get('milan_mm_cli'), 'starting', False)
    return asked or (sys.argv[:1] == ['-m'] and sys.orig_argv[-len(sys.argv)] == 'milan_mm')


if not _command_line_starts():
    from .public import *  # noqa: F403
    from .public import __all__  # noqa: F401


def __getattr__(name: str) -> Any:
    """Any public name, also where the command line has left the import to whoever needs it."""
    if name.startswith('__') and name != '__all__':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module('.public', __name__), name)
