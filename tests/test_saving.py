# SPDX-License-Identifier: Apache-2.0
"""A run that dies while it saves loses no checkpoint that was there."""
import ast
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from mmengine.fileio import LocalBackend
from test_resume import train_mae

from milan_mm.checkpoints.io import is_whole, run_checkpoints


def beside(work):
    """Hidden files but for the run's lock and its list of images: parts of a torn checkpoint."""
    return [p.name for p in work.glob('.*') if not p.name.startswith(('.lock', '.listing_'))]


@pytest.mark.parametrize('keep', [1, 2])
def test_a_full_disk_costs_no_checkpoint_that_was_there(keep, image_folder, tmp_path, monkeypatch,
                                                        capfd):
    whole = LocalBackend.put

    def put(backend, content, path):
        if 'epoch_2' not in str(path):
            return whole(backend, content, path)
        with open(path, 'wb') as file:
            file.write(content[:len(content) // 2])
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(LocalBackend, 'put', put)
    assert train_mae(image_folder, tmp_path, keep=keep) == 2
    error = [line for line in capfd.readouterr().err.splitlines() if line.startswith('error:')]
    assert len(error) == 1 and 'epoch_2.pth could not be written' in error[0]
    assert 'No space left' in error[0]
    assert [p.name for p in run_checkpoints(tmp_path)] == ['epoch_1.pth']
    assert is_whole(tmp_path / 'epoch_1.pth') and beside(tmp_path) == []
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_1.pth')


def test_old_checkpoints_go_when_new_ones_are_there(image_folder, tmp_path):
    assert train_mae(image_folder, tmp_path, keep=1) == 0
    assert [p.name for p in run_checkpoints(tmp_path)] == ['epoch_2.pth']
    assert beside(tmp_path) == []


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL') or not hasattr(os, 'fork'), reason='POSIX')
def test_killed_twice(tmp_path):
    """tests/faults/killed_while_saving.py does it 50 times."""
    # In a process of its own: one in which autograd has started threads cannot be forked.
    done = subprocess.run([sys.executable, ROOT / 'tests/faults/killed_while_saving.py', '--kills',
                           '2'], capture_output=True, text=True, env={**os.environ, 'TMPDIR':
                                                                      str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    counts = ast.literal_eval(done.stdout.splitlines()[-1])
    assert (counts['kills'], counts['lost'], counts['dangling'], counts['ended']) == (2, 0, 0, 0)
