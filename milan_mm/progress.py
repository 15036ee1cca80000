# SPDX-License-Identifier: Apache-2.0
"""Lines of progress with the time that is left."""
import time
from collections.abc import Callable


class Progress:
    """Reports every few seconds how far a loop is and when it will end.

    Args:
        what: is being done, as the line shall begin.
        total: number of steps.
        log: receives the lines.
        every: seconds between two lines; a loop that is done sooner reports nothing.
    """

    def __init__(self, what: str, total: int, log: Callable[[str], None] = print,
                 every: float = 3.0) -> None:
        self.what, self.total, self.log, self.every = what, total, log, every
        self.done = 0
        self.start = self.last = time.time()

    def step(self) -> None:
        """Counts one step."""
        self.done += 1
        now = time.time()
        if now - self.last >= self.every:
            self.last = now
            seconds = now - self.start
            left = seconds / self.done * (self.total - self.done)
            self.log(f'{self.what} {self.done}/{self.total}  {seconds:.0f} s, {left:.0f} s left')
