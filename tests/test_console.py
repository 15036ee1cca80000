# SPDX-License-Identifier: Apache-2.0
"""What a training shows on a terminal, on a real one and on none."""
import os
import pty
import re
import subprocess
import sys
import threading

import pytest
from conftest import ROOT, run_tool
from test_train import SMALL

from milan_mm.cli.launch import is_launched
from milan_mm.cli.main import parse
from milan_mm.compat.quiet_import import quiet_import
from milan_mm.errors import MilanError


def words(image_folder, teacher_folder, work, *more):
    return [*map(str, ('configs/quickstart/milan.py', '--data-root', image_folder, '--work-dir',
                       work, *more)), '--cfg-options', *SMALL, 'train_dataloader.batch_size=12',
            f'model.target_generator.pretrained={teacher_folder}']


def test_a_dry_run_leaves_nothing_and_its_output_is_short(image_folder, teacher_folder, tmp_path):
    out = run_tool('train.py', *words(image_folder, teacher_folder, tmp_path / 'run', '--epochs', 5,
                                      '--dry-run'))
    assert not (tmp_path / 'run').exists()
    table = dict(line.split(maxsplit=1) for line in out.splitlines() if line[:1].islower())
    assert table['images'] == '48' and table['length'].startswith('20 iterations, 5 epochs')
    assert float(table['step'].split()[0]) > 0 and 'MiB a checkpoint, 2 at a time' in table['disk']
    assert len(out.splitlines()) < 25 and 'System environment' not in out


def test_on_a_terminal_one_line_changes(image_folder, teacher_folder, tmp_path):
    """The log file has what the terminal leaves out."""
    master, slave = pty.openpty()
    with subprocess.Popen(
            [sys.executable, str(ROOT / 'tools/train.py'),
             *words(image_folder, teacher_folder, tmp_path, '--epochs', '5')],
            stdin=slave, stdout=slave, stderr=slave, cwd=ROOT) as process:
        os.close(slave)
        out = b''
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # as Linux ends the reading of a terminal that nobody writes to
                break
            if not part:
                break
            out += part
    os.close(master)
    assert process.returncode == 0, out.decode()
    text = out.decode()
    assert re.search(r'epoch 5/5:.*images/s, loss \d', text), text
    assert 'Epoch(train)' not in text and text.count('\n') < 25, text
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'Epoch(train)' in log and 'System environment' in log and 'Hooks will be' in log


@pytest.mark.parametrize('options, message', [
    (['--devices', '2', '--launcher', 'slurm'], '--launcher slurm says that something else'),
    (['--devices', '0'], '--devices must be at least 1'),
    (['--nodes', '2'], '--nodes needs --devices'),
])
def test_launching_contradicted(options, message):
    with pytest.raises(MilanError, match=message):
        is_launched(parse(['train', 'config.py', *options]))


def test_a_mistake_in_several_processes_is_one_line(tmp_path):
    """And not forty more of the launcher's."""
    out = run_tool('dist_train.sh', 'configs/quickstart/milan.py', 2, '--data-root',
                   tmp_path / 'nowhere', code=2, env=dict(PORT='29641'))
    assert [line for line in out.splitlines() if 'rror' in line] == [
        f'error: no such folder: {tmp_path}/nowhere. Give a folder of images (--data-root DIR), '
        'sub-folders allowed'], out
    # Upstream's packages warn of themselves, in lines of theirs.
    others = [line for line in out.splitlines() if 'Warning: ' not in line and line[:1] != ' ']
    assert len(others) < 4, out


def test_two_threads_that_import_leave_the_output_as_it_was():
    """The second one comes while the first is at it, and leaves after it."""
    before, inside, left = sys.stdout, threading.Event(), threading.Event()

    def second():
        with quiet_import():
            inside.set()
            left.wait(10)

    thread = threading.Thread(target=second)
    with quiet_import():
        thread.start()
        inside.wait(.3)
    left.set()
    thread.join()
    assert sys.stdout is before and inside.is_set()
