# SPDX-License-Identifier: Apache-2.0
"""Targets kept in a file: the teacher's own, computed once, never read where they are not whole."""
import os
import shutil
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import milan_config
from faults.killed_and_resumed import SMALL, differences
from torch.utils.data import DataLoader

from milan_mm import MilanError
from milan_mm.checkpoints.io import read_checkpoint
from milan_mm.cli.main import main
from milan_mm.datasets import ImageFolder
from milan_mm.datasets.sampler import SampleIndex
from milan_mm.engine.target_cache import TargetCacheHook
from milan_mm.engine.train import compile_loss
from milan_mm.models import CachedTargetGenerator
from milan_mm.models.targets.cached import TargetFile
from milan_mm.registry import MODELS

SHAPES = (17, 48), (16, )


def opened(folder, entries=4, dtype=np.float16, **identity):
    return TargetFile(folder, identity, entries, SHAPES, np.dtype(dtype))


@pytest.fixture
def cache(teacher_folder, tmp_path):
    teacher = dict(type='milan_mm.CLIPTargetGenerator', pretrained=str(teacher_folder))
    made = CachedTargetGenerator(teacher)
    made.match_student((4, 4), None, None)
    made.file = opened(tmp_path)
    return made


@pytest.fixture
def batch():
    return torch.randn(2, 3, 32, 32), torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)


def asked(cache, images, pixels, views=(1, 2)):
    cache.expect(views, pixels)
    return cache(images)


def test_as_the_teachers_own(cache, batch):
    own = cache.teacher(batch[0])
    first, again = asked(cache, *batch), asked(cache, *batch)
    assert (cache.asked, cache.computed) == (4, 2)
    assert all(torch.equal(*parts) for parts in zip(first, again))
    torch.testing.assert_close(again.features, own.features, rtol=1e-3, atol=1e-3)
    assert torch.equal(again.importance, own.importance)
    other = asked(cache, *batch, views=(2, 3))  # one is not there, the other is of other pixels
    assert cache.computed == 4 and torch.equal(other.features, first.features)
    assert torch.equal(cache(batch[0]).features, own.features)  # outside training


def test_torn_and_foreign_entries_are_not_read(cache, batch, tmp_path):
    first = asked(cache, *batch)
    cache.file = opened(tmp_path)  # another process
    for at in (0, 4, 8, cache.file.entry - 1):
        place = cache.file.entry + at
        right = os.pread(cache.file.number, 1, place)
        os.pwrite(cache.file.number, bytes([right[0] ^ 1]), place)
        before = cache.computed
        assert torch.equal(asked(cache, *batch).features, first.features)
        assert cache.computed == before + 2 and os.pread(cache.file.number, 1, place) == right
    os.truncate(cache.file.number, 2 * cache.file.entry - 1)  # and entry 2 is gone
    assert cache.file.read(1, cache.file.entry) is None and cache.file.read(2, 0) is None
    before = cache.computed
    asked(cache, batch[0], batch[1].flip(-1))
    assert cache.computed == before + 2


def test_another_teacher_begins_another_file(cache, tmp_path):
    assert 'new file' not in opened(tmp_path).news
    assert 'a new file, as the 1 there differ in teacher' in opened(tmp_path, teacher='b').news
    assert 'differ in entries' in opened(tmp_path, entries=5).news
    assert len(list(tmp_path.glob('*.targets'))) == 3
    before = cache.identity()
    with torch.no_grad():
        cache.teacher.tower.visual.proj[0, 0] += 1
    after = cache.identity()
    assert [key for key in before if before[key] != after[key]] == ['teacher']


def test_refusals(image_folder, teacher_folder, tmp_path, monkeypatch):
    teacher = dict(type='milan_mm.CLIPTargetGenerator', pretrained=str(teacher_folder))
    with pytest.raises(MilanError, match='float16 or float32'):
        CachedTargetGenerator(teacher, dtype='int8')
    with pytest.raises(MilanError, match='change with the student'):
        CachedTargetGenerator(dict(type='milan_mm.EMATargetGenerator', levels=1))
    with pytest.raises(MilanError, match='whole number from 1'):
        ImageFolder(tmp_path, fixed_views=0)
    (tmp_path / 'file').write_text('')
    with pytest.raises(MilanError, match='cannot be kept in'):
        opened(tmp_path / 'file')
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: usage(2**30, 2**30 - 2000, 2000))
    with pytest.raises(MilanError, match=r'views take .* GiB more, and .* give'):
        opened(tmp_path)
    assert not list(tmp_path.glob('*.targets'))
    model = MODELS.build(milan_config(teacher_folder, target_generator=dict(
        type='milan_mm.CachedTargetGenerator', teacher=teacher)))
    runner = SimpleNamespace(model=model, train_dataloader=DataLoader(ImageFolder(image_folder)))
    with pytest.raises(MilanError, match='set train_dataloader.dataset.fixed_views=2'):
        TargetCacheHook().before_train(runner)
    runner.train_dataloader.dataset.fixed_views = 2
    compile_loss(model)
    with pytest.raises(MilanError, match='leave one of both out'):
        TargetCacheHook().before_train(runner)


def test_too_large_for_float16(cache, batch):
    with torch.no_grad():
        cache.teacher.tower.visual.proj *= 1e6
    with pytest.raises(MilanError, match="give CachedTargetGenerator dtype='float32'"):
        asked(cache, *batch)


def test_fixed_views_are_crops_with_masks_of_their_own(image_folder):
    def sample(epoch, views):
        data = ImageFolder(image_folder, fixed_views=views, pipeline=[
            dict(type='milan_mm.LoadPILImage'),
            dict(type='milan_mm.RandomResizedCropAndFlip', size=32),
            dict(type='milan_mm.PackImageInputs')])
        return data[SampleIndex(5, 1, epoch)]

    fixed, free = ([sample(epoch, views) for epoch in range(4)] for views in (2, None))
    assert [one['view'] for one in fixed] == [10, 11, 10, 11] and 'view' not in free[0]
    assert len({one['sample_key'] for one in fixed}) == 4
    for epoch, same in enumerate((0, 1, 0, 1)):
        assert fixed[epoch]['sample_key'] == free[epoch]['sample_key']
        assert torch.equal(fixed[epoch]['inputs'], free[same]['inputs'])
    assert not torch.equal(free[0]['inputs'], free[2]['inputs'])


def test_trained_and_resumed(image_folder, teacher_folder, tmp_path, capfd):
    """Two epochs are computed, two read; a run resumed in the second meets the same targets."""
    teacher = dict(type='milan_mm.CLIPTargetGenerator', pretrained=str(teacher_folder))
    (tmp_path / 'config.py').write_text(
        "_base_ = 'milan_mm::quickstart/milan.py'\nmodel = dict(target_generator=dict("
        f"_delete_=True, type='milan_mm.CachedTargetGenerator', teacher={teacher}))\n")

    def run(name, *more):
        assert main(['train', str(tmp_path / 'config.py'), '--data-root', str(image_folder),
                     '--work-dir', str(tmp_path / name), '--epochs', '4', *more,
                     '--cfg-options', *SMALL, 'default_hooks.logger.interval=1',
                     'default_hooks.checkpoint.by_epoch=False', 'log_processor.window_size=1',
                     'default_hooks.checkpoint.interval=2',
                     'default_hooks.checkpoint.max_keep_ckpts=-1',
                     '+train_dataloader.dataset.fixed_views=2']) == 0
        return ''.join(capfd.readouterr())

    said = run('alone')
    assert 'targets in' in said and '96 of 2 KiB' in said
    hub = read_checkpoint(tmp_path / 'alone/iter_16.pth')['message_hub']
    log = hub['log_scalars']['train/targets_read']
    values = log['history_buffer'][0] if isinstance(log, dict) else log._log_history
    assert list(map(float, values)) == [0.] * 8 + [1.] * 8
    run('resumed', '--resume', str(tmp_path / 'alone/iter_6.pth'))
    left = differences(*(tmp_path / name / 'iter_16.pth' for name in ('alone', 'resumed')))
    assert not [name for name in left if 'targets_read' not in name], left
