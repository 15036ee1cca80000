# SPDX-License-Identifier: Apache-2.0
"""A config from its file."""
from pathlib import Path

from mmengine.config import Config

from ..compat.config_errors import sentence_of
from ..compat.old_names import renew, renew_path
from ..errors import MilanError
from ..resources import RESOURCES, locate


def read_config(path: str | Path, folder: str = 'configs') -> Config:
    """``Config.fromfile`` of a path that ``locate`` understands.

    Args:
        path: of the file, or ``milan_mm::PATH`` for one that comes with the package.
        folder: where those lie: ``'configs'`` or ``'studies'``.

    Raises:
        MilanError: if there is no such file, or it or its ``_base_`` cannot be read.
    """
    found = locate(renew_path(path), folder)
    if not found.is_file():
        raise MilanError(f'no such config: {path}. Those that come with the package are in '
                         f'{RESOURCES / folder} and are named milan_mm::PATH, with PATH from there')
    try:
        return renew(Config.fromfile(found))
    except (Exception, SystemExit) as error:  # a config is a program, and may end like one
        words = sentence_of(error)
        if isinstance(error, RecursionError):
            words += '. Does its _base_ lead back to itself?'
        raise MilanError(f'{path} is not a readable config: {type(error).__name__}: '
                         f'{words}') from error
