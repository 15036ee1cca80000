# SPDX-License-Identifier: Apache-2.0
"""A config from its file and the options of a command line."""
from pathlib import Path

from mmengine.config import Config

from ..errors import MilanError


def read_config(path: str | Path) -> Config:
    """``Config.fromfile``, a missing file or a broken ``_base_`` being a MilanError."""
    if not Path(path).is_file():
        raise MilanError(f'no such config: {path}. The configs that come with the project are in '
                         'configs/')
    try:
        return Config.fromfile(path)
    except Exception as error:
        raise MilanError(f'{path} is not a readable config: {type(error).__name__}: '
                         f'{error}') from error


def merge_options(cfg: Config, options: dict | None) -> None:
    """``--cfg-options``; one that does not fit the config is a MilanError."""
    if not options:
        return
    try:
        cfg.merge_from_dict(options)
    except Exception as error:
        raise MilanError(f'--cfg-options {" ".join(options)} does not fit the config: '
                         f'{type(error).__name__}: {error}') from error
