# SPDX-License-Identifier: Apache-2.0
"""PyTorch raises the error about a dead worker wherever the main thread is (2.5 to 2.14).

That may be in the midst of a step, or while the first such error is being reported, which then ends
in a traceback of both. A worker whose training is gone reports at length that it is. And a worker
that is killed while it looks whether the loading is over never gives the lock of that look back:
who then tells the others that it is over waits for ever.
"""
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter as _Iterator


def batches_of(loader: DataLoader) -> Iterator[Any]:
    """A loader's batches; that a worker died is raised while one is waited for, nowhere else."""
    if not loader.num_workers or not hasattr(signal, 'SIGCHLD') or (
            threading.current_thread() is not threading.main_thread()):
        yield from loader
        return
    sys.excepthook = _quiet_in_workers  # which are forked with it
    end_without_the_dead()
    iterator = iter(loader)
    handler = _HANDLER.setdefault('of torch', signal.getsignal(signal.SIGCHLD))
    while True:
        signal.signal(signal.SIGCHLD, handler)
        try:
            torch._C._error_if_any_worker_fails()
            batch = next(iterator)
        except StopIteration:
            return
        finally:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        yield batch


_HANDLER: dict[str, Any] = {}  # PyTorch sets it once in the life of a process


def end_without_the_dead() -> None:
    """Lets every loader of this process end, validation's too, after a worker was killed.

    PyTorch counts on the signal of a child's death to get out of the wait by an error; it may have
    come before.
    """
    for name, first in _ASKS_THE_LOCK.items():
        if getattr(_Iterator, name) is first:
            setattr(_Iterator, name, _with_a_free_lock(first))


_ASKS_THE_LOCK = {name: getattr(_Iterator, name)
                  for name in ('_mark_worker_as_unavailable', '_shutdown_workers')}


def _with_a_free_lock(ask: Callable[..., None]) -> Callable[..., None]:

    def asked(self: _Iterator, *args: Any, **kwargs: Any) -> None:
        if not self._shutdown and any(worker.exitcode for worker in self._workers):
            for worker in self._workers:
                worker.kill()
            self._workers_done_event = multiprocessing.Event()
        ask(self, *args, **kwargs)

    return asked


def _quiet_in_workers(kind: type[BaseException], error: BaseException,
                      trace: TracebackType | None) -> None:
    if multiprocessing.parent_process() is None or not issubclass(kind, ConnectionError):
        sys.__excepthook__(kind, error, trace)
