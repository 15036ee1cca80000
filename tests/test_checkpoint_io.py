# SPDX-License-Identifier: Apache-2.0
"""Weights are read without running what a file says."""
import os
import pickle
import zipfile

import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file

from milan_mm.checkpoints.io import read_checkpoint, state_of, write_atomically
from milan_mm.errors import MilanError


class Poison:
    """Runs a command when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f'touch {self.mark}', )


def poisoned_files(folder, mark):
    with open(folder / 'plain.pth', 'wb') as file:
        pickle.dump(dict(state_dict=Poison(mark)), file)
    torch.save(dict(state_dict=Poison(mark)), folder / 'zip.pth')
    module = torch.jit.script(torch.nn.Linear(2, 2))
    module.save(str(folder / 'script.pt'))
    with zipfile.ZipFile(folder / 'script.pt') as source, zipfile.ZipFile(
            folder / 'evil_script.pt', 'w') as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith('data.pkl'):
                data = pickle.dumps(Poison(mark), protocol=2)
            target.writestr(name, data)
    return ['plain.pth', 'zip.pth', 'evil_script.pt']


def test_poisoned_files_are_refused_and_do_nothing(tmp_path):
    mark = tmp_path / 'was_run'
    for name in poisoned_files(tmp_path, mark):
        with pytest.raises(MilanError, match='refused|not a readable'):
            read_checkpoint(tmp_path / name)
        assert not mark.exists(), name


def test_opting_in_by_name_runs_it(tmp_path):
    mark = tmp_path / 'was_run'
    torch.save(dict(a=Poison(mark)), tmp_path / 'x.pth')
    read_checkpoint(tmp_path / 'x.pth', trust=True)
    assert mark.exists()


def test_getattr_is_no_way_out(tmp_path):
    """OpenMMLab's histories pickle methods by getattr; only theirs are let through."""

    class Sly:

        def __reduce__(self):
            return getattr, (torch.Tensor, 'numpy')

    torch.save(dict(a=Sly()), tmp_path / 'sly.pth')
    with pytest.raises(MilanError, match='refused|not a readable'):
        read_checkpoint(tmp_path / 'sly.pth')


def test_openmmlabs_own_checkpoints(tmp_path):
    torch.save(dict(state_dict=dict(w=torch.ones(2)),
                    message_hub=dict(log_scalars={'train/loss': HistoryBuffer([1., 2.], [1, 1])})),
               tmp_path / 'epoch_1.pth')
    if tuple(int(p) for p in torch.__version__.split('.')[:2]) < (2, 6):
        with pytest.raises(MilanError, match='trust-checkpoint'):
            read_checkpoint(tmp_path / 'epoch_1.pth')
        return
    loaded = read_checkpoint(tmp_path / 'epoch_1.pth')
    assert loaded['message_hub']['log_scalars']['train/loss'].mean() == 1.5


def test_torchscript_state(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).half()
    torch.jit.script(module).save(str(tmp_path / 'x.pt'))
    state = read_checkpoint(tmp_path / 'x.pt')
    want = module.state_dict()
    assert set(state) >= set(want)
    assert all(torch.equal(state[k], v) for k, v in want.items())


def test_damage_is_said_in_one_line(tmp_path):
    save_file(dict(w=torch.ones(1000)), tmp_path / 'x.safetensors')
    whole = (tmp_path / 'x.safetensors').read_bytes()
    (tmp_path / 'cut.safetensors').write_bytes(whole[:500])
    (tmp_path / 'empty.pth').write_bytes(b'')
    torch.save(torch.nn.Linear(1, 1).weight, tmp_path / 'tensor.pth')
    for name, words in (('cut.safetensors', 'not a readable'), ('empty.pth', 'empty'),
                        ('absent.pth', 'no such file'), ('tensor.pth', 'expected a dict')):
        with pytest.raises(MilanError, match=words) as caught:
            read_checkpoint(tmp_path / name)
        assert '\n' not in str(caught.value)


def test_every_altered_byte_of_an_archive_is_noticed(tmp_path):
    """Its tensors are compared with their checksums: torch.load does not."""
    torch.save(dict(state_dict=dict(w=torch.ones(4000))), tmp_path / 'x.pth')
    whole = (tmp_path / 'x.pth').read_bytes()
    first = whole.index(torch.ones(4000).numpy().tobytes())
    for at in (first, first + 7001, first + 15999):
        (tmp_path / 'x.pth').write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1:])
        torch.load(tmp_path / 'x.pth', weights_only=True)
        with pytest.raises(MilanError, match='checksum'):
            read_checkpoint(tmp_path / 'x.pth')


def test_state_of():
    want = dict(w=torch.ones(1))
    for wrapped in (want, dict(state_dict=want), dict(model=want, epoch=3),
                    dict(state_dict={'module.w': want['w']}, meta={})):
        assert torch.equal(state_of(wrapped)['w'], want['w'])


def test_nothing_half_written(tmp_path):
    target = tmp_path / 'x.json'
    target.write_text('old')

    def fails(path):
        path.write_text('half')
        raise OSError('disk full')

    with pytest.raises(OSError):
        write_atomically(target, fails)
    assert target.read_text() == 'old' and list(tmp_path.iterdir()) == [target]
