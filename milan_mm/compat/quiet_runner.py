# SPDX-License-Identifier: Apache-2.0
"""mmengine's runner writes to the terminal what one looks for in its log file.

A run of two steps prints 468 lines: environment, config, hooks, and a line for each parameter with
a weight decay of its own. On the terminal they hide the rest; the log file in the work folder keeps
them all.
"""
import contextlib
import functools
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

from mmengine.logging import MMLogger

_FOR_THE_FILE = re.compile(
    r'\n-+\nSystem environment:|Config:\n|Hooks will be executed|paramwise_options --|Exp name:|'
    r'Checkpoints will be saved to|.* is skipped since its requires_grad=False|parameter groups:|'
    r'Distributed training is not used, all SyncBatchNorm|"FileClient" will be deprecated|'
    r'"HardDiskBackend" is the alias|Failed to search registry|'
    r'.*initialize (after|with)|\n?Name of parameter - Initialization information')


@contextlib.contextmanager
def quiet_runner() -> Iterator[None]:
    """Runners built within it keep such lines from the terminal."""
    make = MMLogger.__init__

    @functools.wraps(make)
    def make_quiet(self: MMLogger, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        for handler in handlers_of_the_terminal(self):
            handler.addFilter(_is_shown)

    MMLogger.__init__ = make_quiet  # runners and strategies make theirs, and write to it at once
    try:
        yield
    finally:
        MMLogger.__init__ = make
    # Accumulated gradients make no step in the first iterations, as they should.
    warnings.filterwarnings('ignore', message='Detected call of `[a-z_]*scheduler.step')


def handlers_of_the_terminal(logger: logging.Logger) -> list[logging.Handler]:
    """Those of a logger that write to no file."""
    return [one for one in logger.handlers if not isinstance(one, logging.FileHandler)]


def _is_shown(record: logging.LogRecord) -> bool:
    return not _FOR_THE_FILE.match(record.getMessage())
