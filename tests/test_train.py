# SPDX-License-Identifier: Apache-2.0
"""Training through the real command lines, on real files, in real processes."""
import contextlib
import os
import re
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, TINY_VIT, run_tool

from milan_mm.checkpoints.io import read_checkpoint

SMALL = [
    'model.backbone.img_size=32', 'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False', 'train_dataloader.dataset.pipeline.1.size=32',
    'default_hooks.logger.interval=2',
    *(f'model.backbone.arch.{k}={v}' for k, v in TINY_VIT.items()),
    'model.neck.decoder_embed_dim=32', 'model.neck.decoder_depth=1'
]


def options(teacher_folder, batch=12, extra=()):
    return ['--cfg-options', *SMALL, f'train_dataloader.batch_size={batch}',
            f'model.target_generator.pretrained={teacher_folder}', *extra]


def words(image_folder, teacher_folder, work, *more, batch=12, extra=()):
    return ['--data-root', image_folder, '--work-dir', work, *more,
            *options(teacher_folder, batch, extra)]


def milan(*arguments, run=run_tool, code=0, **kwargs):
    return run('train.py', 'configs/quickstart/milan.py', *words(*arguments, **kwargs), code=code)


@pytest.fixture(scope='module')
def trained(image_folder, teacher_folder, tmp_path_factory):
    """20 steps: 48 images, 12 a step, 5 epochs."""
    work = tmp_path_factory.mktemp('run')
    out = milan(image_folder, teacher_folder, work, '--epochs', 5,
                extra=('default_hooks.checkpoint.interval=1',
                       'default_hooks.checkpoint.max_keep_ckpts=2'))
    return work, out


def test_twenty_steps(trained):
    work, out = trained
    assert 'batch: 12 images x 1 processes x 1 accumulated = 12 per update' in out
    assert 'NOT the recipe\'s 64' in out and 'data: 48 images' in out
    last = [line for line in out.splitlines() if 'Epoch(train)' in line][-1]
    for shown in ('eta', 'loss', 'cos_visible', 'cos_masked', 'importance_seen', 'grad_norm', 'lr',
                  'images_per_s', 'memory_mb'):
        assert f'{shown}: ' in last, shown
    losses = [float(x) for x in re.findall(r' loss: ([\d.]+)', out)]
    assert losses[-1] < losses[0]
    assert list(work.glob('*/vis_data/events.out.tfevents.*'))


def test_checkpoint_is_plain_and_holds_no_teacher(trained):
    checkpoint = torch.load(trained[0] / 'epoch_5.pth', weights_only=True)
    assert {k.split('.')[0] for k in checkpoint['state_dict']} == {'backbone', 'neck'}
    described = checkpoint['meta']['milan_mm']['encoder']
    assert described == dict(arch=TINY_VIT, img_size=(32, 32), patch_size=8)


def test_resume_goes_on(trained, image_folder, teacher_folder, tmp_path):
    """From the checkpoint after 4 epochs to the weights of the run of 5."""
    out = milan(image_folder, teacher_folder, tmp_path, '--epochs', 5, '--resume',
                trained[0] / 'epoch_4.pth')
    assert 'resumed epoch: 4' in out and 'Epoch(train) [5]' in out
    assert 'Epoch(train) [4]' not in out
    one, two = (read_checkpoint(f / 'epoch_5.pth')['state_dict'] for f in (trained[0], tmp_path))
    assert max((one[k] - two[k]).abs().max().item() for k in one) < 1e-5


def test_two_processes_are_one(trained, image_folder, teacher_folder, tmp_path):
    """Two gloo processes of 6 images take the steps of one process of 12."""
    out = run_tool('dist_train.sh', 'configs/quickstart/milan.py', 2,
                   *words(image_folder, teacher_folder, tmp_path, '--epochs', 5, batch=6),
                   env=dict(PORT='29631'))
    assert '6 images x 2 processes x 1 accumulated = 12 per update' in out
    one, two = (read_checkpoint(f / 'epoch_5.pth')['state_dict'] for f in (trained[0], tmp_path))
    # Sums in another order, then 20 steps of AdamW, which divides by small numbers.
    assert max((one[k] - two[k]).abs().max().item() for k in one) < 1e-3
    norms = [re.findall(r'grad_norm: ([\d.]+)', o) for o in (trained[1], out)]
    assert [float(n) for n in norms[0]] == pytest.approx([float(n) for n in norms[1]], rel=1e-2)


@pytest.mark.slow
def test_two_machines(image_folder, tmp_path):
    """Two launchers that know of each other by NODE_RANK alone; each ends without a complaint."""
    command = [sys.executable, '-m', 'milan_mm', 'train', 'configs/quickstart/mae.py',
               '--data-root', image_folder, '--work-dir', tmp_path / 'run', '--epochs', '1',
               '--devices', '1', '--nodes', '2', '--cfg-options', *SMALL,
               'train_dataloader.batch_size=12']
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(subprocess.Popen(
            [*map(str, command)], cwd=ROOT, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env={**os.environ, 'NODE_RANK': str(rank), 'PORT': '29641',
                                           'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}))
            for rank in (0, 1)]
        said = [node.communicate(timeout=200)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert '12 images x 2 processes' in said[0] and (tmp_path / 'run/epoch_1.pth').is_file()
    assert not re.search('Traceback|exit barrier|c10::', ''.join(said))


@pytest.mark.onedl_only
def test_sharded_training(image_folder, teacher_folder, tmp_path):
    """FSDP through mmengine: two gloo processes hold a shard each, the teacher held whole."""
    small = [option for option in SMALL if 'arch.' not in option]
    (tmp_path / 'fsdp.py').write_text(
        f"_base_ = '{ROOT}/configs/milan/vitl_pretrain_fsdp.py'\n"
        f'model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY_VIT}), patch_size=8))\n'
        'strategy = dict(model_wrapper=dict(mixed_precision=None, '
        'auto_wrap_policy=dict(min_num_params=10000)))\n')
    out = run_tool(
        'dist_train.sh', tmp_path / 'fsdp.py', 2, '--data-root', image_folder, '--work-dir',
        tmp_path / 'run', '--epochs', 2, '--cfg-options', *small, 'train_dataloader.batch_size=6',
        'optim_wrapper.accumulative_counts=1', 'model.target_generator.model=None',
        f'model.target_generator.pretrained={teacher_folder}',
        'default_hooks.checkpoint.interval=1', env=dict(PORT='29632'))
    losses = [float(x) for x in re.findall(r' loss: ([\d.]+)', out)]
    assert len(losses) == 4 and losses[-1] < losses[0]
    state = read_checkpoint(tmp_path / 'run/epoch_2.pth')['state_dict']
    assert {k.split('.')[0] for k in state} == {'backbone', 'neck'}
    assert state['backbone.layers.1.attn.qkv.weight'].shape == (144, 48)


@pytest.mark.slow
@pytest.mark.onedl_only
def test_a_sharded_step_is_a_step(image_folder, teacher_folder, tmp_path):
    """Two processes with a shard each take the steps of two with all of it, to the bit."""
    model = f'model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY_VIT}), patch_size=8))\n'
    bases = [f'{ROOT}/configs/_base_/{part}.py' for part in (
        'models/milan_vitb', 'datasets/imagenet_224', 'schedules/pretrain_400e', 'default_runtime')]
    (tmp_path / 'whole.py').write_text(f'_base_ = {bases}\n{model}')
    (tmp_path / 'sharded.py').write_text(
        f"_base_ = '{ROOT}/configs/milan/vitl_pretrain_fsdp.py'\n{model}"
        'strategy = dict(model_wrapper=dict(mixed_precision=None, '
        'auto_wrap_policy=dict(min_num_params=10000)))\n')
    states = []
    for name in ('whole', 'sharded'):
        run_tool('dist_train.sh', tmp_path / f'{name}.py', 2, '--data-root', image_folder,
                 '--work-dir', tmp_path / name, '--epochs', 1, '--cfg-options',
                 *(option for option in SMALL if 'arch.' not in option),
                 'train_dataloader.batch_size=8', 'optim_wrapper.accumulative_counts=1',
                 'model.target_generator.model=None',
                 f'model.target_generator.pretrained={teacher_folder}', env=dict(PORT='29633'))
        states.append(read_checkpoint(tmp_path / name / 'epoch_1.pth')['state_dict'])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_mae_starts_from_milan(trained, image_folder, tmp_path, run_here):
    out = run_here('train.py', 'configs/quickstart/mae.py', '--data-root', image_folder,
                   '--work-dir', tmp_path, '--epochs', 1, '--init-from',
                   trained[0] / 'epoch_5.pth', '--cfg-options', *SMALL,
                   'train_dataloader.batch_size=12')
    # 2 blocks of 12 tensors, CLS, positions, 2 of patch map, 2 of the norm
    assert '30 of 30 encoder tensors (100 %) came from' in out
    assert 'the decoder starts fresh' in out


def test_milan_continues_with_its_decoder(trained, image_folder, teacher_folder, tmp_path,
                                          run_here):
    out = milan(image_folder, teacher_folder, tmp_path, '--epochs', 1, '--init-from',
                trained[0] / 'epoch_5.pth', run=run_here)
    assert 'encoder tensors (100 %)' in out and 'decoder tensors' in out
    first = float(re.search(r' loss: ([\d.]+)', out).group(1))
    fresh = float(re.search(r' loss: ([\d.]+)', trained[1]).group(1))
    assert first < fresh


def test_init_from_another_architecture_is_refused(trained, image_folder, teacher_folder,
                                                   tmp_path, run_here):
    out = milan(image_folder, teacher_folder, tmp_path, '--epochs', 1, '--init-from',
                trained[0] / 'epoch_5.pth', extra=('model.backbone.arch.num_layers=3', ), code=2,
                run=run_here)
    assert 'does not fit the encoder' in out and 'layers.2' in out and 'Traceback' not in out


@pytest.fixture
def damaged_folder(image_folder, tmp_path):
    """A copy in which 2 of 50 images are broken."""
    import shutil
    folder = tmp_path / 'damaged'
    shutil.copytree(image_folder, folder)
    for name in ('bad 1.png', 'ünlesbar.png'):
        (folder / name).write_bytes(b'\x89PNG no more')
    return folder


def test_bad_images_are_named_and_too_many_end_the_run(damaged_folder, teacher_folder, tmp_path,
                                                       run_here):
    out = milan(damaged_folder, teacher_folder, tmp_path / 'a', '--epochs', 1,
                extra=('default_hooks.unreadable.max_share=0.1', ), run=run_here)
    named = (tmp_path / 'a/unreadable_images.txt').read_text().splitlines()
    assert sorted(named) == sorted(str(damaged_folder / n) for n in ('bad 1.png', 'ünlesbar.png'))
    assert '2 of 50 images cannot be decoded' in out and 'bad 1.png' in out
    out = milan(damaged_folder, teacher_folder, tmp_path / 'b', '--epochs', 1, code=2,
                run=run_here)
    assert 'more than the share allowed, 1.0%' in out and 'Traceback' not in out


@pytest.mark.parametrize('arguments, words', [
    (['configs/no_such.py'], 'no such config'),
    (['configs/quickstart/mae.py', '--data-root', '/no/such/folder'], 'no such folder'),
    (['configs/quickstart/mae.py', '--data-root', 'IMAGES', '--cfg-options',
      'train_dataloader.batch_size=1000'], 'do not fill one batch'),
    (['configs/quickstart/milan.py', '--data-root', 'IMAGES', '--cfg-options',
      'model.target_generator.pretrained=/no/teacher'], 'teacher weights not found'),
    (['configs/quickstart/mae.py', '--data-root', 'IMAGES', '--init-from', '/no/file'],
     'no such file'),
    (['configs/quickstart/mae.py', '--data-root', 'IMAGES', '--cfg-options',
      'model.backbone.img_size=50'], 'do not tile'),
])
def test_bad_input_is_one_line_and_exit_2(arguments, words, image_folder, tmp_path, run_here):
    arguments = [str(image_folder) if a == 'IMAGES' else a for a in arguments]
    at = arguments.index('--cfg-options') if '--cfg-options' in arguments else len(arguments)
    arguments[at:at] = ['--work-dir', str(tmp_path)]
    out = run_here('train.py', *arguments, code=2)
    error = [line for line in out.splitlines() if 'error:' in line]
    assert len(error) == 1 and words in error[0] and 'Traceback' not in out


class Poison:
    """Makes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return open, (self.mark, 'w')


@pytest.mark.parametrize('route', [
    ['--init-from', 'FILE', '--cfg-options'], ['--resume', 'FILE', '--cfg-options'],
    ['--cfg-options', 'load_from=FILE'],
    ['--cfg-options', 'model.target_generator.pretrained=FILE',
     'model.target_generator.quickgelu=True']])
def test_a_poisoned_file_runs_nothing_on_any_route(route, image_folder, tmp_path, run_here):
    torch.save(dict(state_dict={}, meta=Poison(tmp_path / 'was_run')), tmp_path / 'x.pth')
    config = 'milan' if 'quickgelu' in route[-1] else 'mae'
    more = [word.replace('FILE', str(tmp_path / 'x.pth')) for word in route]
    out = run_here('train.py', f'configs/quickstart/{config}.py', '--data-root', image_folder,
                   '--work-dir', tmp_path / 'run', *more, 'train_dataloader.batch_size=12', code=2)
    error = [line for line in out.splitlines() if 'error:' in line]
    assert len(error) == 1 and 'is refused' in error[0] and '--trust-checkpoint' in error[0]
    assert 'Traceback' not in out and not (tmp_path / 'was_run').exists()


@pytest.mark.parametrize('tool', sorted(
    p.name for p in (ROOT / 'tools').iterdir()
    if p.suffix in ('.py', '.sh') and p.name != 'quickstart.sh'))
def test_help(tool):
    assert 'usage' in run_tool(tool, '--help').lower()
