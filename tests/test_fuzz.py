# SPDX-License-Identifier: Apache-2.0
"""A few of the files that ``tests/faults/fuzz_*.py`` spoil by the hundred."""
import signal

import pytest
from faults import fuzz_annotations, fuzz_checkpoints
from faults.judging import at_most_a_minute


@pytest.mark.parametrize('kind, count', [
    (fuzz_checkpoints, 14), (fuzz_annotations, 20),
    pytest.param(fuzz_checkpoints, 500, marks=pytest.mark.slow),
    pytest.param(fuzz_annotations, 500, marks=pytest.mark.slow)])
def test_spoilt_files_end_well(kind, count, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = []
    with at_most_a_minute():
        found = kind.fuzz(tmp_path, count, seed=1, tell=lines.append)
    assert signal.alarm(0) == 0 and sum(found.values()) == count
    assert not found['fault'], [line for line in lines if line.startswith('fault')]
    assert found['error'] and found['success']
