# SPDX-License-Identifier: Apache-2.0
"""A dead worker, or a dead process beside, ends a training in one line, and in no step's midst."""
import gc
import os
import signal
import sys
import time

import pytest
from torch.utils.data import DataLoader

from milan_mm.cli.failures import in_words
from milan_mm.compat.dead_workers import batches_of, end_without_the_dead

pytestmark = pytest.mark.skipif(not hasattr(signal, 'SIGCHLD'), reason='POSIX')


class Numbers(list):
    """Each with the process that loaded it; the last ones take their time."""

    def __getitem__(self, index):
        time.sleep(index > 6)
        return super().__getitem__(index), os.getpid()


def test_a_dead_worker_is_noticed_between_two_steps():
    before = signal.getsignal(signal.SIGCHLD)
    batches = batches_of(DataLoader(Numbers(range(12)), num_workers=2))
    _, worker = next(batches)
    try:
        os.kill(int(worker), signal.SIGKILL)
        deadline = time.time() + .3
        while time.time() < deadline:
            time.sleep(.05)  # a step: nothing is raised within
        with pytest.raises(RuntimeError) as caught:
            list(batches)
        time.sleep(.1)  # nor after it
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert in_words(caught.value).startswith('a process that loads data was ended (DataLoader wo')
    assert '--resume' in in_words(caught.value)


class KilledInTheLook(list):
    """Kills the process that loads it while that looks whether the loading is over."""

    def __getitem__(self, index):
        frame = sys._getframe()
        while 'done_event' not in frame.f_locals:
            frame = frame.f_back
        frame.f_locals['done_event']._cond.acquire()
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize('take', [batches_of, iter])  # a training's loop, a validation's
@pytest.mark.timeout(20)
def test_a_worker_killed_in_its_look_at_the_end_hangs_nobody(take):
    end_without_the_dead()
    before = signal.getsignal(signal.SIGCHLD)
    batches = take(DataLoader(KilledInTheLook(range(4)), num_workers=1, persistent_workers=True))
    try:
        with pytest.raises(RuntimeError, match='worker'):
            list(batches)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # no help comes from the signal any more
        del batches
        gc.collect()
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_batches_are_those_of_the_loader():
    for workers in (0, 2):
        loader = DataLoader(list(range(7)), 2, num_workers=workers)
        assert [batch.tolist() for batch in batches_of(loader)] == [[0, 1], [2, 3], [4, 5], [6]]


def test_a_dead_process_beside_is_named():
    """As gloo says it; tests/faults/endurance.py kills real ones."""
    error = RuntimeError('[x/gloo/transport/tcp/pair.cc:561] Connection closed by peer [::1]:1')
    assert in_words(error).startswith('another process of this training ended')
