# SPDX-License-Identifier: Apache-2.0
"""A loss or gradient that is not finite costs one update, not the run."""
import json
import math
import os
import time

import pytest
import torch
from conftest import ROOT, TINY_VIT
from faults.spoilt_images import SpoilImages  # noqa: F401
from helpers_processes import in_two_processes
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from milan_mm.analysis.replay import replay
from milan_mm.checkpoints.io import read_checkpoint
from milan_mm.checkpoints.saved_config import check_types
from milan_mm.cli.main import main
from milan_mm.compat.plain_checkpoints import PlainCheckpointHook
from milan_mm.config.read import read_config
from milan_mm.config.sane_numbers import check_numbers
from milan_mm.engine.bad_numbers import BadNumbersHook
from milan_mm.engine.saving import WholeCheckpointHook
from milan_mm.errors import MilanError
from milan_mm.keyed_random import sample_key
from milan_mm.registry import DATASETS

NAN, LOSS, GRADIENT = 'nan', 'loss', 'gradient'  # what is wrong with a batch


class Tiny(BaseModel):
    """A batch norm and a linear layer; two more inputs spoil the loss alone, or its gradient."""

    def __init__(self):
        super().__init__()
        self.norm, self.line = nn.BatchNorm1d(4), nn.Linear(4, 2)

    def forward(self, inputs, mode='loss'):
        values, to_loss, below_root = inputs[:, :4], inputs[:, 4].sum(), inputs[:, 5].prod()
        loss = self.line(self.norm(values)).square().mean()
        return dict(loss=loss + to_loss + (self.line.weight.sum() * 0 + below_root).sqrt())


class Scaled(OptimWrapper):
    """mmengine's ``AmpOptimWrapper`` refuses to be made without CUDA; this scales as it does."""

    def __init__(self, scale, **kwargs):
        super().__init__(**kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale)

    def backward(self, loss, **kwargs):
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs):
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()


def train_tiny(work, faults=(), batches=8, hooks=True, stop_after=5, scale=None, accumulate=1,
               epochs=1, custom_hooks=(), **more):
    """Trains on batches of 4 of which some are spoilt: {number of the batch: what is wrong}."""
    torch.manual_seed(0)
    rows = torch.cat([torch.randn(240, 4), torch.zeros(240, 1), torch.ones(240, 1)], 1)
    rows = rows[:batches * 4]
    for batch, fault in dict(faults).items():
        column, value = {NAN: (0, math.nan), LOSS: (4, math.inf), GRADIENT: (5, 0.)}[fault]
        rows[batch * 4:batch * 4 + 4, column] = value
    model = Tiny()
    model.line.weight.data *= 20  # so that a large loss scale overflows
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    settings = dict(optimizer=optimizer, accumulative_counts=accumulate)
    runner = Runner(
        model, str(work), train_cfg=dict(by_epoch=True, max_epochs=epochs),
        train_dataloader=dict(dataset=[dict(inputs=row) for row in rows], batch_size=4,
                              collate_fn=dict(type='default_collate'),
                              sampler=dict(type='DefaultSampler', shuffle=False)),
        optim_wrapper=Scaled(scale, **settings) if scale else OptimWrapper(**settings),
        custom_hooks=[*([BadNumbersHook(stop_after)] if hooks else []), *custom_hooks],
               default_scope='mmengine', experiment_name=f'tiny {time.time_ns()}', **more)
    try:
        runner.train()
    except MilanError as error:
        runner.error = error
    record = work / 'bad_numbers.jsonl'
    runner.record = [json.loads(line) for line in record.read_text().splitlines()
                     ] if record.exists() else []
    return runner


def steps_of(runner):
    return {int(state['step']) for state in runner.optim_wrapper.optimizer.state.values()}


def equal(one, two):
    one, two = one.state_dict(), two.state_dict()
    return all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize('accumulate', [1, 3])
def test_a_good_run_is_the_same_to_the_bit(accumulate, tmp_path):
    runs = [train_tiny(tmp_path / str(hooks), hooks=hooks, accumulate=accumulate)
            for hooks in (True, False)]
    assert equal(runs[0].model, runs[1].model) and not runs[0].record
    one, two = (run.optim_wrapper.state_dict()['state'] for run in runs)
    assert all(torch.equal(one[p][key], two[p][key]) for p in one for key in one[p])


@pytest.mark.parametrize('fault', [NAN, LOSS, GRADIENT])
def test_such_an_update_never_was(fault, tmp_path):
    """Weights, moments and running statistics are those of a run that met the good batches only."""
    run = train_tiny(tmp_path / 'bad', {7: fault, 8: fault}, batches=9)
    assert equal(run.model, train_tiny(tmp_path / 'good', batches=7).model)
    assert steps_of(run) == {7} and not hasattr(run, 'error')
    assert [(line['iter'], line['fault']) for line in run.record] == [
        (i, GRADIENT if fault == GRADIENT else LOSS) for i in (7, 8)]
    assert run.message_hub.get_info('updates_left_out') == 2
    logged = run.message_hub.get_scalar('train/loss').data[0]
    assert all(map(math.isfinite, logged)) and len(logged) == (9 if fault == GRADIENT else 7)


def test_an_accumulated_update_is_left_out_whole(tmp_path):
    run = train_tiny(tmp_path, {1: NAN, 7: LOSS}, batches=9, accumulate=3)
    assert steps_of(run) == {1}
    assert [line['iter'] for line in run.record] == [1, 7]
    run = train_tiny(tmp_path / 'gradient', {1: GRADIENT}, batches=9, accumulate=3)
    assert steps_of(run) == {2}
    assert [line['iter'] for line in run.record] == [0, 1, 2]  # nobody knows which


def test_so_many_in_a_row_end_the_run(tmp_path):
    run = train_tiny(tmp_path, {1: NAN, 2: NAN, 4: NAN, 5: NAN, 6: NAN}, stop_after=3)
    assert 'the loss or gradient of 3 updates in a row is not finite' in str(run.error)
    assert 'last at iteration 7' in str(run.error) and 'the weights are. ' in str(run.error)
    assert '\n' not in str(run.error) and steps_of(run) == {2}
    assert all(p.isfinite().all() for p in run.model.parameters())
    with pytest.raises(MilanError, match='stop_after of BadNumbersHook is 0'):
        BadNumbersHook(0)


def test_a_loss_scaler_skips_by_itself(tmp_path):
    """Down from a scale that overflows; a loss of NaN, and a scale that is never found, count."""
    run = train_tiny(tmp_path / 'a', scale=3e38, batches=20)
    assert run.optim_wrapper.loss_scaler.get_scale() < 3e38 and not hasattr(run, 'error')
    assert not run.record and 0 < steps_of(run).pop() < 20
    run = train_tiny(tmp_path / 'b', {4: NAN}, scale=2.)
    assert len(run.record) == 1 and run.optim_wrapper.loss_scaler.get_scale() == 2
    run = train_tiny(tmp_path / 'c', dict.fromkeys(range(60), GRADIENT), batches=60, scale=2.**16)
    assert 'last at iteration 55' in str(run.error)


class Ruin(Hook):
    """Puts NaN into a weight, or into a moment, just before the second epoch's checkpoint."""

    def __init__(self, where):
        self.where = where

    def after_train_epoch(self, runner):
        if runner.epoch == 1:
            weight = runner.model.line.weight
            moments = runner.optim_wrapper.optimizer.state[weight]
            moments.get(self.where, weight.data).fill_(math.nan)


@pytest.mark.parametrize('where', ['line.weight', 'exp_avg'])
def test_no_such_state_is_saved(where, tmp_path):
    saving = dict(checkpoint=dict(type=WholeCheckpointHook, interval=1, max_keep_ckpts=1))
    run = train_tiny(tmp_path, custom_hooks=[Ruin(where), PlainCheckpointHook()], batches=3,
                     epochs=3, default_hooks=saving)
    assert f'{where} holds NaN or infinity, and no checkpoint is made of that' in str(run.error)
    assert f'--resume {tmp_path}/epoch_1.pth' in str(run.error) and '\n' not in str(run.error)
    assert [p.name for p in tmp_path.glob('*.pth')] == ['epoch_1.pth']
    assert read_checkpoint(tmp_path / 'epoch_1.pth')['meta']['epoch'] == 1


def one_of_two(rank, folder, fault):
    os.environ['LOCAL_RANK'] = str(rank)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank,
                                         world_size=2)
    run = train_tiny(folder, custom_hooks=[SpoilRank(1, 2, fault)], launcher='pytorch',
                     cfg=dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel',
                                                     device_ids=None, broadcast_buffers=False)))
    torch.save([run.model.module.state_dict(), list(steps_of(run))], folder / f'{rank}.pt')


class SpoilRank(Hook):
    """Spoils one batch on one rank alone."""

    def __init__(self, rank, batch, fault):
        self.rank, self.batch, self.fault = rank, batch, fault

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if (get_rank(), batch_idx) == (self.rank, self.batch):
            data_batch['inputs'][:, 4 if self.fault == LOSS else 0] = math.inf


@pytest.mark.parametrize('fault', [NAN, LOSS])
def test_all_processes_leave_out_the_same(fault, tmp_path):
    assert in_two_processes(one_of_two, tmp_path, fault) == [0, 0]
    (one, steps), (two, also) = (torch.load(tmp_path / f'{r}.pt') for r in range(2))
    assert steps == also == [3]
    assert all(torch.equal(one[k], two[k]) for k in one if k.startswith('line'))
    assert all(value.isfinite().all() for state in (one, two) for value in state.values())
    lines = [json.loads(line) for line in (tmp_path / 'bad_numbers.jsonl').read_text().splitlines()]
    assert [(line['rank'], line['iter'], line['fault']) for line in lines] == [(1, 2, LOSS)]


def write_config(folder, names):
    path = folder / 'tiny_mae.py'
    path.write_text(
        f"_base_ = {str(ROOT / 'configs/quickstart/mae.py')!r}\n"
        "custom_imports = dict(imports=['milan_mm', 'faults.spoilt_images'])\n"
        f'model = dict(backbone=dict(img_size=32, arch=dict(_delete_=True, **{TINY_VIT})),\n'
        '             neck=dict(decoder_embed_dim=32, decoder_depth=1))\n'
        'train_dataloader = dict(\n'
        '    batch_size=12, num_workers=0, persistent_workers=False, dataset=dict(pipeline=[\n'
        "        dict(type='milan_mm.LoadPILImage'),\n"
        "        dict(type='milan_mm.RandomResizedCropAndFlip', size=32, scale=(0.2, 1.0)),\n"
        "        dict(type='milan_mm.PackImageInputs'),\n"
        f"        dict(type='mmengine.SpoilImages', names={names})]))\n"
        'default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=1))\n')
    return path


def test_a_bad_image_on_the_command_line(image_folder, tmp_path, capfd):
    """It costs its batch; the record gives the images and the keys of their masks."""
    work = tmp_path / 'run'
    arguments = ['--data-root', image_folder, '--work-dir', work, '--epochs']
    assert main(['train', write_config(tmp_path, ['7.png']), *arguments, 2]) == 0
    lines = [json.loads(line) for line in (work / 'bad_numbers.jsonl').read_text().splitlines()]
    assert [line['epoch'] for line in lines] == [0, 1] and lines[0]['loss'] == 'nan'
    for line in lines:
        assert len(line['images']) == 12 and any(p.endswith('/7.png') for p in line['images'])
        keys = {sample_key(line['seed'], line['epoch'], i, 'mask') for i in range(48)}
        assert len(line['sample_keys']) == 12 and keys.issuperset(line['sample_keys'])
    saved = read_checkpoint(work / 'epoch_2.pth')
    assert all(value.isfinite().all() for value in saved['state_dict'].values())
    assert saved['message_hub']['runtime_info']['updates_left_out'] == 2
    capfd.readouterr()
    assert main(['train', write_config(tmp_path, ['*']), *arguments, 4, '--resume']) == 2
    error = capfd.readouterr().err
    assert error.count('error: ') == 1 and 'Traceback' not in error
    assert '5 updates in a row is not finite, last at iteration 13' in error
    assert f'--resume {work}/epoch_3.pth' in error


@pytest.mark.parametrize('option, value', [
    ('data_preprocessor.std', [0, 0, 0]), ('data_preprocessor.std', [58., math.nan, 57.]),
    ('data_preprocessor.mean', [math.inf, 0, 0]), ('model.target_generator.std', [0.2, -1, 0.2]),
    *(('optim_wrapper.optimizer.lr', lr) for lr in (1e38, 0, -1e-3, math.nan, math.inf, 'fast')),
    *(('optim_wrapper.optimizer.weight_decay', decay) for decay in (-1, math.inf)),
    ('optim_wrapper.optimizer.betas', (0.9, 1.5)), ('optim_wrapper.clip_grad.max_norm', math.nan),
    ('optim_wrapper.accumulative_counts', 0), ('optim_wrapper.accumulative_counts', 1.5),
    ('model.backbone.drop_path_rate', 2),
    ('param_scheduler.0.start_factor', math.nan), ('param_scheduler.1.eta_min', math.inf)])
def test_nonsense_is_refused_by_the_name_of_its_option(option, value):
    cfg = read_config(ROOT / 'configs/quickstart/milan.py')
    check_numbers(cfg)
    cfg.merge_from_dict({option: value})
    with pytest.raises(MilanError, match=f'^{option}.* is .*, expected .*nothing can be trained'):
        check_numbers(cfg)


def test_nonsense_is_refused_on_the_command_line(image_folder, tmp_path, capfd):
    assert main(['train', 'configs/quickstart/mae.py', '--data-root', image_folder, '--work-dir',
                 tmp_path, '--cfg-options', 'optim_wrapper.optimizer.lr=1e38']) == 2
    assert capfd.readouterr().err.startswith('error: optim_wrapper.optimizer.lr is 1e+38, expected')


@pytest.fixture(scope='module')
def spoilt_run(image_folder, tmp_path_factory):
    """A run whose second and third epoch met one image of NaN."""
    folder = tmp_path_factory.mktemp('spoilt')
    arguments = ['train', '--data-root', image_folder, '--work-dir', folder / 'run', '--epochs']
    assert main([*arguments[:1], write_config(folder, []), *arguments[1:], 1]) == 0
    config = write_config(folder, ['7.png'])
    assert main([*arguments[:1], config, *arguments[1:], 3, '--resume']) == 0
    return folder / 'run', config


def test_a_replay_names_the_image(spoilt_run, image_folder, capfd):
    """The same images in the same crops, each with its loss: the one of NaN alone has none."""
    run, config = spoilt_run
    capfd.readouterr()
    assert main(['replay', run, '--config', config, '--data-root', image_folder, '--line', 2,
                 '--checkpoint', run / 'epoch_3.pth']) == 0
    out = capfd.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.startswith('  ')]
    assert len(rows) == 12 and [r[0] == 'nan' for r in rows] == ['/7.png' in str(r) for r in rows]
    assert 'group 1/deep/7.png  is not finite itself' in out and 'loss of the batch: nan' in out
    assert 'first output that is not finite: data_preprocessor' in out
    with pytest.raises(MilanError, match="wants a 'nobody.Data', which neither"):
        check_types(dict(type='nobody.Data'), 'a.pth', (DATASETS, ))
    assert main(['replay', run, '--line', 9]) == 2
    assert 'has 2 lines, --line is 9' in capfd.readouterr().err


@pytest.mark.filterwarnings('ignore:Error detected')
def test_a_replay_is_the_step_and_names_the_module(spoilt_run, image_folder, tmp_path):
    """Its loss is that of the run; of a weight that overflows the module is named."""
    config = write_config(tmp_path, [])
    run = tmp_path / 'run'
    assert main(['train', config, '--data-root', image_folder, '--work-dir', run, '--epochs', 2,
                 '--cfg-options', 'default_hooks.logger.interval=1',
                 'default_hooks.checkpoint.by_epoch=False', 'default_hooks.checkpoint.interval=1',
                 'default_hooks.checkpoint.max_keep_ckpts=-1']) == 0
    logged = [json.loads(line) for line in next(run.glob('*/vis_data/scalars.json')).open()]
    (run / 'bad_numbers.jsonl').write_bytes((spoilt_run[0] / 'bad_numbers.jsonl').read_bytes())
    line = json.loads((run / 'bad_numbers.jsonl').read_text().splitlines()[0])
    made = replay(run)
    assert made.trained == line['iter'] and made.output is None and made.gradient is None
    assert made.loss == pytest.approx(next(row['mse_masked'] for row in logged
                                           if row.get('iter') == line['iter'] + 1), rel=1e-4)
    assert sum(made.losses) / 12 == pytest.approx(made.loss, rel=1e-4)
    content = torch.load(made.checkpoint, weights_only=False)
    content['state_dict']['backbone.patch_embed.projection.weight'].fill_(3e38)
    torch.save(content, tmp_path / 'large.pth')
    made = replay(run, checkpoint=tmp_path / 'large.pth', anomaly=True)
    assert made.output == 'backbone.patch_embed.projection' and made.gradient
    with pytest.raises(MilanError, match='the data are not those of the step'):
        replay(run, config=config, data_root=image_folder / 'group 1')
