# SPDX-License-Identifier: Apache-2.0
"""A training that is told to stop saves first, says so in its exit code, and can go on."""
import os
import signal
import subprocess

import pytest
import torch
from conftest import ROOT
from helpers_processes import in_two_processes
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from test_bad_numbers import train_tiny, write_config

from milan_mm.checkpoints.io import is_whole, read_checkpoint, run_checkpoints
from milan_mm.cli.main import main
from milan_mm.compat.plain_checkpoints import PlainCheckpointHook
from milan_mm.engine.signals import StopOnSignalHook

CODES = dict(SIGTERM=143, SIGUSR1=138, SIGHUP=129)
pytestmark = pytest.mark.skipif(not hasattr(signal, 'SIGUSR1'), reason='POSIX')


@HOOKS.register_module()
class SendSignal(Hook):
    """Sends this process a signal in a step, as Slurm or Kubernetes would."""

    def __init__(self, number, at, rank=0):
        self.number, self.at, self.rank = number, at, rank

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if (runner.iter, get_rank()) == (self.at, self.rank):
            os.kill(os.getpid(), self.number)


def stop_tiny(work, name, at, rank=0, **more):
    before = signal.getsignal(getattr(signal, name))
    with pytest.raises(BaseException) as stopped:
        train_tiny(work, custom_hooks=[SendSignal(getattr(signal, name), at, rank),
                                       PlainCheckpointHook(), StopOnSignalHook()], **more)
    assert signal.getsignal(getattr(signal, name)) == before
    return stopped.value


@pytest.mark.parametrize('name', CODES)
def test_a_signal_leaves_a_checkpoint_and_its_exit_code(name, tmp_path):
    assert stop_tiny(tmp_path, name, 2).code == CODES[name]
    assert [p.name for p in run_checkpoints(tmp_path)] == ['iter_3.pth']
    saved = read_checkpoint(tmp_path / 'iter_3.pth')
    assert (saved['meta']['epoch'], saved['meta']['iter']) == (0, 3) and saved['optimizer']['state']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_3.pth')


def test_at_the_end_of_an_epoch_the_epoch_counts(tmp_path):
    stop_tiny(tmp_path, 'SIGTERM', 7, epochs=2)
    assert [p.name for p in run_checkpoints(tmp_path)] == ['epoch_1.pth']
    assert read_checkpoint(tmp_path / 'epoch_1.pth')['meta']['epoch'] == 1


def test_the_keyboard_stops_it_so_too(tmp_path):
    assert isinstance(stop_tiny(tmp_path, 'SIGINT', 2), KeyboardInterrupt)
    assert is_whole(tmp_path / 'iter_3.pth')


def one_of_two(rank, folder):
    os.environ['LOCAL_RANK'] = str(rank)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank,
                                         world_size=2)
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    raise stop_tiny(folder, 'SIGUSR1', 1, rank=1, launcher='pytorch',
                    cfg=dict(model_wrapper_cfg=wrapper))


def test_a_signal_to_one_process_stops_all(tmp_path):
    assert in_two_processes(one_of_two, tmp_path) == [138, 138]
    assert is_whole(tmp_path / 'iter_2.pth')


def test_a_stopped_run_goes_on(image_folder, tmp_path):
    """By the command line; and a checkpoint of a later epoch is newer than one of a step."""
    work, config = tmp_path / 'run', write_config(tmp_path, [])
    command = ['train', config, '--data-root', image_folder, '--work-dir', work, '--epochs', 3]
    whole = config.read_text()
    config.write_text(whole + 'custom_hooks = [dict(type="mmengine.SendSignal", number='
                              f'{int(signal.SIGUSR1)}, at=5)]\n')
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 138
    assert run_checkpoints(work)[0] == work / 'iter_6.pth'
    config.write_text(whole)
    assert main([*command, '--resume']) == 0
    assert run_checkpoints(work)[0] == work / 'epoch_3.pth'


def test_slurm_puts_the_job_back_into_the_queue(tmp_path):
    """With stand-ins for srun and scontrol that write down what they were asked."""
    srun = 'trap "exit 138" USR1; touch started; while :; do sleep 0.05; done'
    for name, text in (('srun', srun), ('scontrol', 'echo "$@" > asked')):
        (tmp_path / name).write_text(f'#!/usr/bin/env bash\n{text}\n')
        (tmp_path / name).chmod(0o755)
    job = subprocess.Popen(
        ['bash', ROOT / 'tools/slurm_train.sh', 'part', 'name', 'config.py', '--resume'],
        cwd=tmp_path, env={**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}',
                           'SLURM_JOB_ID': '77'})
    while not (tmp_path / 'started').exists():
        assert job.poll() is None
    job.send_signal(signal.SIGUSR1)
    assert job.wait(20) == 0
    assert (tmp_path / 'asked').read_text() == 'requeue 77\n'
