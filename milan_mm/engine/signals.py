# SPDX-License-Identifier: Apache-2.0
"""A training that is told to stop saves where it is first."""
import os
import signal
import threading
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, barrier, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from ..registry import HOOKS
from .saving import save_now

_NAMES = ('SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1')  # Windows lacks the last two


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """Saves a checkpoint at the next step after Ctrl-C, SIGTERM, SIGHUP or SIGUSR1, and ends.

    The exit code is 128 + the signal's number: 130 after Ctrl-C, 143 after SIGTERM, 129 after
    SIGHUP, and 138 after SIGUSR1, with which ``tools/slurm_train.sh`` puts its job back into the
    queue. A signal to one process stops all; they exchange one number a step for it. A second
    signal ends the process at once.
    """
    priority = 'LOWEST'  # after the checkpoint that is due anyway

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._received = self._agreed = 0
        self._process = os.getpid()

    def before_train(self, runner: Any) -> None:
        self._received, self._process = 0, os.getpid()
        if threading.current_thread() is threading.main_thread():  # as signal.signal asks for
            numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
            self._before = {number: signal.signal(number, self._note) for number in numbers}

    def after_train(self, runner: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        received = torch.tensor([self._received])
        if get_world_size() > 1:
            all_reduce(received, 'max')
        self._agreed = int(received)
        in_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
        if self._agreed and not (in_epochs and self.end_of_epoch(
                runner.train_dataloader, batch_idx)):
            self._stop(runner, by_epoch=False)

    def after_train_epoch(self, runner: Any) -> None:
        if self._agreed:
            self._stop(runner, by_epoch=True)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a worker that loads data, which is ended by its parent
        if self._received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._received = number

    def _stop(self, runner: Any, by_epoch: bool) -> None:
        path = save_now(runner, by_epoch)
        barrier()  # launchers kill the others when the first process ends
        runner.logger.warning(f'stopped by {signal.Signals(self._agreed).name}; the checkpoint is '
                              f'{path}: go on with --resume')
        self.after_train(runner)
        if self._agreed == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self._agreed)
