# SPDX-License-Identifier: Apache-2.0
"""How far a loop is and how long it still takes."""
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm


class Progress(tqdm):
    """tqdm's bar on a terminal; elsewhere, as in the log of a job, a line every few seconds.

    A loop that is done before its first line would be due leaves no trace there. Walk through
    it, or call ``update(steps)`` and in the end ``close()``.

    Args:
        what: is being done, as the line begins; None shows nothing.
        of: the things to walk through, or how many there are.
        log: receives the lines, on a terminal too; by default they go to stderr.
    """
    monitor_interval = 0  # no thread beside the processes of a data loader

    def __init__(self, what: str | None, of: Sequence | int,
                 log: Callable[[str], None] | None = None) -> None:
        shown: dict[str, Any] = dict(mininterval=0.2, dynamic_ncols=True)
        if sys.stderr.isatty() and not os.get_terminal_size(sys.stderr.fileno()).columns:
            shown = dict(mininterval=0.2, ncols=80, nrows=24)  # it does not say how large it is
        if log is not None or not sys.stderr.isatty():
            every = 3.0 if log else 10.0
            shown = dict(mininterval=every, delay=every, file=_Lines(log), bar_format='{desc}: '
                         '{n_fmt}/{total_fmt}, {rate_noinv_fmt}, {remaining} left')
        things = dict(total=of) if isinstance(of, int) else dict(iterable=of)
        super().__init__(desc=what, disable=what is None, unit='', miniters=1, **things, **shown)


class _Lines:
    """A stream that makes a line of every state of the bar."""

    def __init__(self, log: Callable[[str], None] | None) -> None:
        self.log = log or (lambda line: print(line, file=sys.stderr, flush=True))

    def write(self, text: str) -> None:
        if text.strip():
            self.log(text.strip())

    def flush(self) -> None:
        """Every line is out already."""
