# SPDX-License-Identifier: Apache-2.0
"""PyTorch raises the error about a dead worker wherever the main thread is (2.5 to 2.14).

That may be in the midst of a step, or while the first such error is being reported, which then ends
in a traceback of both. And a worker whose training is gone reports at length that it is.
"""
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader


def batches_of(loader: DataLoader) -> Iterator[Any]:
    """A loader's batches; that a worker died is raised while one is waited for, nowhere else."""
    if not loader.num_workers or not hasattr(signal, 'SIGCHLD') or (
            threading.current_thread() is not threading.main_thread()):
        yield from loader
        return
    sys.excepthook = _quiet_in_workers  # which are forked with it
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


def _quiet_in_workers(kind: type[BaseException], error: BaseException,
                      trace: TracebackType | None) -> None:
    if multiprocessing.parent_process() is None or not issubclass(kind, ConnectionError):
        sys.__excepthook__(kind, error, trace)
