# SPDX-License-Identifier: Apache-2.0
"""A config from its file and the options of a command line."""
from pathlib import Path

from mmengine.config import Config

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
    except Exception as error:
        raise MilanError(f'{path} is not a readable config: {type(error).__name__}: '
                         f'{error}') from error


def merge_options(cfg: Config, options: dict | None, name: str = '--cfg-options') -> None:
    """Entries by their dotted keys; one that does not fit the config is a MilanError.

    Args:
        cfg: changed in place.
        options: of ``--cfg-options``, or of where ``name`` says.
        name: for the message.
    """
    if not options:
        return
    try:
        cfg.merge_from_dict(options)
    except Exception as error:
        raise MilanError(f'{name} {" ".join(options)} does not fit the config: '
                         f'{type(error).__name__}: {error}') from error
