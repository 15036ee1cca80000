# SPDX-License-Identifier: Apache-2.0
"""A work folder has one training at a time; where nothing can be written, one line says so."""
import multiprocessing
import os
import signal
import time

import pytest
from test_bad_numbers import write_config

from milan_mm.cli.main import main
from milan_mm.engine.lock import only_training_in
from milan_mm.errors import MilanError


def hold(folder, ready):
    with only_training_in(folder):
        if os.fork() == 0:  # a worker that outlives a killed training
            time.sleep(2)
            os._exit(0)
        ready.set()
        time.sleep(60)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='POSIX')
def test_a_second_training_is_refused(tmp_path):
    context = multiprocessing.get_context('fork')
    ready = context.Event()
    holder = context.Process(target=hold, args=(tmp_path, ready), daemon=True)
    holder.start()
    assert ready.wait(20)
    with pytest.raises(MilanError, match=f'in use: the training of process {holder.pid} on .* '
                                         'give another --work-dir'), only_training_in(tmp_path):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    os.waitpid(holder.pid, 0)
    with only_training_in(tmp_path):  # at once, though the worker lives
        pass


def test_only_the_first_process_holds_it(tmp_path, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    with only_training_in(tmp_path / 'work', 'pytorch'):
        assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize('size, words', [(10_000, 'File too large'),
                                         (100_000, 'epoch_1.pth could not be written')])
def test_a_limit_of_the_file_size_is_one_line(size, words, image_folder, tmp_path, capfd):
    """The first does not even let a log be written. tests/faults/bad_disks.py has many more."""
    resource = pytest.importorskip('resource')
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        assert main(['train', write_config(tmp_path, []), '--data-root', image_folder, '--work-dir',
                     tmp_path / 'run', '--epochs', 1, '--cfg-options',
                     # Runs begun in one second would share mmengine's log, closed by the first.
                     f'experiment_name=limit_{size}']) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = capfd.readouterr().err
    assert error.count('error: ') == 1 and words in error.rpartition('error: ')[2]
    assert 'Traceback' not in error and 'Logging error' not in error


def test_a_file_is_no_work_folder(image_folder, tmp_path, capfd):
    (tmp_path / 'mine').write_text('text')
    assert main(['train', write_config(tmp_path, []), '--data-root', image_folder, '--work-dir',
                 tmp_path / 'mine']) == 2
    assert f'{tmp_path}/mine can be no work folder: File exists' in capfd.readouterr().err
    assert (tmp_path / 'mine').read_text() == 'text'
