# SPDX-License-Identifier: Apache-2.0
"""Upstream's iteration-based loop starts its workers while it is made (mmengine 0.10.7).

A resumed run does not know then which batch it goes on with, so that they load for nothing, and
move the sampler on. onedl-mmengine 0.10.12 waits for the first batch.
"""
import contextlib
from collections.abc import Iterator

from mmengine.runner import loops


@contextlib.contextmanager
def no_workers_yet() -> Iterator[None]:
    """Within it, an ``IterBasedTrainLoop`` is made without an iterator of its loader."""
    eager = loops._InfiniteDataloaderIterator
    loops._InfiniteDataloaderIterator = lambda loader: None
    try:
        yield
    finally:
        loops._InfiniteDataloaderIterator = eager
