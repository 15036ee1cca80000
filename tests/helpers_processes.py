# SPDX-License-Identifier: Apache-2.0
"""Two processes that meet over gloo, for tests of a module's own function."""
import multiprocessing
from collections.abc import Callable
from typing import Any


def in_two_processes(run: Callable[..., None], *args: Any, seconds: float = 30) -> list[int | None]:
    """Their exit codes after ``run(rank, *args)``; None of one that is not done by then."""
    fork = multiprocessing.get_context('fork')
    processes = [fork.Process(target=run, args=(rank, *args), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds)
    return [process.exitcode for process in processes]
