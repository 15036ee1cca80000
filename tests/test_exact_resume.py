# SPDX-License-Identifier: Apache-2.0
"""A run that goes on from any checkpoint ends as the run that was never stopped, to the bit.

tests/faults/killed_and_resumed.py does it with every task, by kill -9.
"""
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from faults.killed_and_resumed import Ground, differences
from helpers_processes import in_two_processes
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from milan_mm.checkpoints.io import read_checkpoint
from milan_mm.cli.main import main
from milan_mm.compat.plain_checkpoints import PlainCheckpointHook
from milan_mm.datasets import LoadPILImage
from milan_mm.engine.loops import go_on_exactly
from milan_mm.engine.place import PlaceHook
from milan_mm.engine.saving import WholeCheckpointHook

NO_VALIDATION = ['val_dataloader=None', 'val_cfg=None', 'val_evaluator=None']


@pytest.fixture(scope='module')
def ground(tmp_path_factory):
    return Ground(tmp_path_factory.mktemp('ground'))


def test_finetuning(ground, tmp_path, monkeypatch):
    """Drop path, mixup, cutmix, erasing, averaged weights; in an epoch, between two updates."""
    read, loaded = LoadPILImage.transform, []
    monkeypatch.setattr(LoadPILImage, 'transform', lambda self, results: (
        loaded.append(results['img_path']), read(self, results))[1])
    for name, resume in (('alone', ()), ('resumed', ('--resume', tmp_path / 'alone/iter_10.pth'))):
        assert main(ground.command('finetuning accumulated', tmp_path / name, '--epochs', 2,
                                   *resume, options=NO_VALIDATION)) == 0
    assert not differences(*(tmp_path / name / 'iter_16.pth' for name in ('alone', 'resumed')))
    assert len(loaded) == 48 + 18  # none of what was trained on before


LOADED: list[int] = []


class Draws(BaseDataset):
    """Numbers that a transform draws from the global generators."""

    def load_data_list(self):
        return [dict(number=i) for i in range(22)]

    def prepare_data(self, index):
        if self.test_mode:
            return dict(inputs=torch.full((4, ), index))
        if index % 5 == 4 and random.random() < .5:
            return None  # mmengine draws another one
        LOADED.append(int(index))
        return dict(inputs=torch.tensor(np.random.rand(4)) + random.random() + torch.rand(1))


class Dropping(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Dropout(.5), nn.Linear(8, 2))

    def forward(self, inputs, data_samples=None, mode='loss'):
        found = self.layers(inputs.float()).square().mean()
        return dict(loss=found * np.random.rand() * random.random()) if mode == 'loss' else [found]


class Score(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(float(data_samples[0]))

    def compute_metrics(self, results):
        return dict(score=sum(results))


def train(work, load_from=None, loop=None, sampler='DefaultSampler', workers=0, accumulate=1,
          batch_size=3, validate=False, by_epoch=False, hooks=(), **more):
    """Trains on numbers, from a seed that nobody gave, saving after each step."""
    cfg = Config(dict(train_cfg=loop or dict(by_epoch=True, max_epochs=3), **more.pop('cfg', {})))
    go_on_exactly(cfg)
    model, data = Dropping(), Draws(serialize_data=False)
    loader = dict(dataset=data, batch_size=batch_size, num_workers=workers,
                  collate_fn=dict(type='default_collate'))
    if validate:
        more.update(val_dataloader=dict(loader, dataset=Draws(test_mode=True),
                                        sampler=dict(type='DefaultSampler', shuffle=False)),
                    val_evaluator=Evaluator(Score()), val_cfg={})
    runner = Runner(
        model, str(work), train_cfg=cfg.train_cfg, load_from=load_from and str(load_from),
        train_dataloader=dict(loader, sampler=dict(type=sampler, shuffle=True)),
        optim_wrapper=OptimWrapper(torch.optim.AdamW(model.parameters(), lr=.1),
                                   accumulative_counts=accumulate),
        default_hooks=dict(checkpoint=dict(
            type=WholeCheckpointHook, by_epoch=by_epoch, interval=1)),
        custom_hooks=[*hooks, PlainCheckpointHook(), PlaceHook(bool(load_from))],
        resume=bool(load_from), default_scope='mmengine', cfg=cfg,
        experiment_name=f'draws {time.time_ns()}', **more)
    LOADED.clear()
    runner.train()
    return runner


def check_numbers(tmp_path, at, **settings):
    train(tmp_path / 'alone', **settings)
    resumed = train(tmp_path / 'resumed', tmp_path / f'alone/iter_{at}.pth', **settings)
    last = f'iter_{resumed.iter}.pth'
    assert not differences(tmp_path / 'alone' / last, tmp_path / 'resumed' / last)
    return resumed


@pytest.mark.parametrize('at', [3, 8, 12])
def test_epochs(at, tmp_path):
    """In an epoch, at its last step, in the next: 8 batches of 3, the last with one image."""
    check_numbers(tmp_path, at)
    assert len(LOADED) == 3 * 22 - (at // 8) * 22 - at % 8 * 3


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('sampler', ['InfiniteSampler', 'DefaultSampler'])
def test_iterations(sampler, workers, tmp_path):
    """Also with a sampler that ends, which mmengine begins anew."""
    resumed = check_numbers(tmp_path, 11, sampler=sampler, workers=workers,
                            loop=dict(type='IterBasedTrainLoop', max_iters=19))
    assert resumed.iter == 19 and (workers or len(LOADED) in (8 * 3, 8 * 3 - 2))


def test_samples_are_drawn_alike_by_any_number_of_workers(tmp_path):
    randomness = dict(seed=3)
    for workers in (0, 1, 3):
        train(tmp_path / str(workers), workers=workers, randomness=randomness)
        assert not differences(*(tmp_path / w / 'iter_24.pth' for w in ('0', str(workers))))


def test_the_sum_of_gradients_goes_on(tmp_path):
    check_numbers(tmp_path, 4, accumulate=3)
    saved = read_checkpoint(tmp_path / 'alone/iter_4.pth')
    assert [*saved['place']['sums'][0]] == [
        f'layers.{layer}.{part}' for layer in (0, 2) for part in ('weight', 'bias')]
    assert read_checkpoint(tmp_path / 'alone/iter_6.pth')['place']['sums'] == []


@pytest.mark.parametrize('name', ['epoch_2.pth', 'iter_16.pth'])
def test_an_evaluation_that_was_due_is_made_up_for(name, tmp_path):
    """A checkpoint is made before it: a run killed in between would have no score for it."""
    settings = dict(loop=dict(by_epoch=True, max_epochs=3, val_interval=2), validate=True,
                    by_epoch=name.startswith('epoch'))
    runs = [train(tmp_path / 'alone', **settings),
            train(tmp_path / 'resumed', tmp_path / 'alone' / name, **settings)]
    scores = [run.message_hub.get_scalar('val/score').data[0].tolist() for run in runs]
    assert scores[0] == scores[1] and len(scores[0]) == 2


def test_another_batch_goes_on_about_there(tmp_path, caplog):
    train(tmp_path / 'alone', batch_size=2)  # 11 batches
    resumed = train(tmp_path / 'resumed', tmp_path / 'alone/iter_15.pth', batch_size=4)
    assert len(LOADED) == 22 - 8 + 22 and resumed.epoch == 3


class CountReductions(Hook):
    """How often gradients go to the other process."""

    def before_train(self, runner):
        self.count = 0
        runner.model.register_comm_hook(None, self.reduce)

    def reduce(self, state, bucket):
        self.count += 1
        return allreduce_hook(None, bucket)

    def after_train(self, runner):
        (Path(runner.work_dir) / 'reductions').write_text(str(self.count))


def one_of_two(rank, folder, load_from):
    os.environ['LOCAL_RANK'] = str(rank)
    work = folder / ('resumed' if load_from else 'alone')
    torch.distributed.init_process_group('gloo', init_method=f'file://{work}.meet', rank=rank,
                                         world_size=2)
    train(work, load_from, accumulate=3, launcher='pytorch', hooks=[CountReductions()],
          cfg=dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None)))


def test_two_processes_that_accumulate(tmp_path):
    """Each has its own sum, and its own random numbers; they exchange sums, not their parts."""
    for load_from in (None, tmp_path / 'alone/iter_7.pth'):
        assert in_two_processes(one_of_two, tmp_path, load_from, seconds=60) == [0, 0]
    assert len(read_checkpoint(tmp_path / 'alone/iter_7.pth')['place']['sums']) == 2
    assert not differences(*(tmp_path / f'{run}/iter_12.pth' for run in ('alone', 'resumed')))
    # 12 steps of 3 an update; the other run took two updates in its last 5.
    assert [(tmp_path / run / 'reductions').read_text() for run in ('alone', 'resumed')] == [
        '4', '2']


def test_small_images_first(ground, tmp_path, capfd):
    """The worker, which lives on, gives the sizes of the epochs; resumed before the last change."""
    phases = ['+train_dataloader.dataset.pipeline.1.phases=(((24,32),1),(16,1))',
              'train_dataloader.num_workers=1', 'train_dataloader.persistent_workers=True']
    for name, resume in (('alone', ()), ('resumed', ('--resume', tmp_path / 'alone/iter_10.pth'))):
        assert main(ground.command('pretraining', tmp_path / name, *resume, options=phases)) == 0
    assert not differences(*(tmp_path / name / 'iter_18.pth' for name in ('alone', 'resumed')))
    assert 'images of 24 x 32 up to epoch 1, 16 x 16 up to epoch 2, then of 32 x 32' in (
        ''.join(capfd.readouterr()))
