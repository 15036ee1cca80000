# SPDX-License-Identifier: Apache-2.0
"""What the terminal shows of a running training."""
import logging
import sys
import time
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook

from ..compat.quiet_runner import handlers_of_the_terminal
from ..progress import Progress
from ..registry import HOOKS

_FIRST, _EVERY = 10., 30.  # seconds of silence before a line, where there is no terminal


@HOOKS.register_module()
class ProgressHook(Hook):
    """Shows how far a training is, how fast, and how long it still takes.

    On a terminal it is one line that changes: epoch, time left, images a second, loss and memory;
    the lines of ``LoggerHook`` are in the log file then. Elsewhere those lines are shown, and where
    they are rare, as on a CPU, one of this hook's after 10 and then every 30 seconds.
    """
    priority = 'VERY_LOW'  # after what there is to show is known

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._last_line = self._began = 0.
        self._first_iter = 0

    def before_train(self, runner: Any) -> None:
        self._began, self._first_iter = time.monotonic(), runner.iter
        self._last_line = self._began - _EVERY + _FIRST
        if is_main_process() and sys.stderr.isatty():
            self._bar = Progress('training', runner.max_iters)
            self._bar.initial = self._bar.n = runner.iter
        for handler in handlers_of_the_terminal(runner.logger):
            handler.addFilter(self._passes)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        if self._bar is not None:
            self._bar.set_description_str(_where(runner), refresh=False)
            self._bar.set_postfix_str(_state(runner), refresh=False)
            self._bar.update()
        elif time.monotonic() - self._last_line > _EVERY:
            done = runner.iter + 1
            left = (time.monotonic() - self._began) / (done - self._first_iter) * (
                runner.max_iters - done)
            runner.logger.info(f'{_where(runner)}, iteration {done} of {runner.max_iters}, '
                               f'{_state(runner)}, {Progress.format_interval(left)} left')
            self._last_line = time.monotonic()

    def after_train(self, runner: Any) -> None:
        for handler in handlers_of_the_terminal(runner.logger):
            handler.removeFilter(self._passes)
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _passes(self, record: logging.LogRecord) -> bool:
        """Whether a line of the log goes to the terminal, too."""
        of_training = record.getMessage().startswith(('Epoch(train)', 'Iter(train)'))
        if of_training:
            self._last_line = time.monotonic()
        if self._bar is None:
            return True
        self._bar.clear()  # the line takes its place; the bar comes again below it
        return not of_training


def _where(runner: Any) -> str:
    return f'epoch {runner.epoch + 1}/{runner.max_epochs}' if runner.max_epochs > 1 else 'training'


def _state(runner: Any) -> str:
    scalars = runner.message_hub.log_scalars

    def now(name: str) -> float | None:
        values = scalars.get(f'train/{name}')
        return values.mean(50) if values is not None and len(values.data[0]) else None

    seconds, loss = now('time'), now('loss')
    memory = now('memory') or now('memory_mb')
    images = runner.train_dataloader.batch_size
    return ', '.join(part for part in (
        seconds and f'{images * get_world_size() / seconds:.3g} images/s',
        loss is not None and f'loss {loss:.4g}',
        memory and f'{memory / 1024:.1f} GiB') if part)
