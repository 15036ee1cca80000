# SPDX-License-Identifier: Apache-2.0
"""Augmentation and masks are a function of (seed, epoch, sample), whoever asks, whenever."""
import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from torch.utils.data import DataLoader

from milan_mm.datasets import EpochSampler, ImageFolder
from milan_mm.datasets.sampler import SampleIndex
from milan_mm.keyed_random import sample_key, seeded_globals

PIPELINE = [
    dict(type='milan_mm.LoadPILImage'),
    dict(type='milan_mm.RandomResizedCropAndFlip', size=32),
    dict(type='milan_mm.RandomResizedCropAndFlip', size=24),
    dict(type='milan_mm.PackImageInputs'),
]


def seen(folder, batch_size, workers, epochs=2, seed=3, rank=0, world_size=1):
    """{(epoch, path): (pixels, key)} of a run's data."""
    dataset = ImageFolder(folder, pipeline=PIPELINE)
    sampler = EpochSampler(dataset, seed=seed)
    sampler.rank, sampler.world_size = rank, world_size
    loader = DataLoader(dataset, batch_size, sampler=sampler, num_workers=workers,
                        persistent_workers=workers > 0, collate_fn=default_collate)
    found = {}
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for batch in loader:
            for pixels, sample, key in zip(batch['inputs'], batch['data_samples'],
                                           batch['sample_key']):
                found[epoch, sample.img_path] = (pixels, int(key))
    return found


def same(a, b):
    assert set(a) == set(b)
    return all(torch.equal(a[k][0], b[k][0]) and a[k][1] == b[k][1] for k in a)


def test_workers_batch_and_global_state_change_nothing(image_folder):
    reference = seen(image_folder, 8, 0)
    assert len(reference) == 96
    np.random.rand(11)
    assert same(reference, seen(image_folder, 8, 3))  # persistent workers, two epochs
    assert same(reference, seen(image_folder, 4, 2))
    assert not same(reference, seen(image_folder, 8, 0, seed=4))


def test_processes_change_nothing(image_folder):
    reference = seen(image_folder, 8, 0)
    ranks = [seen(image_folder, 4, 0, rank=r, world_size=2) for r in (0, 1)]
    assert not set(ranks[0]) & set(ranks[1])
    assert same(reference, {**ranks[0], **ranks[1]})


def test_global_batches_hold_the_same_images(image_folder):
    """The first 8 of one process are the first 4 and 4 of two."""
    dataset = ImageFolder(image_folder, pipeline=PIPELINE)
    order = [int(i) for i in EpochSampler(dataset, seed=0)]
    halves = []
    for rank in (0, 1):
        sampler = EpochSampler(dataset, seed=0)
        sampler.rank, sampler.world_size = rank, 2
        halves.append([int(i) for i in sampler][:4])
    assert sorted(order[:8]) == sorted(halves[0] + halves[1])


def test_epochs_differ(image_folder):
    found = seen(image_folder, 8, 0)
    differ = [not torch.equal(found[0, p][0], found[1, p][0]) for _, p in list(found)[:48]]
    assert sum(differ) >= 46
    assert len({key for _, key in found.values()}) == 96


def test_index_survives_the_way_to_a_worker():
    index = pickle.loads(pickle.dumps(SampleIndex(5, seed=1, epoch=2)))
    assert (index, index.seed, index.epoch) == (5, 1, 2)


def test_key_depends_on_each_argument():
    base = (1, 2, 3, 'mask')
    others = [(0, 2, 3, 'mask'), (1, 0, 3, 'mask'), (1, 2, 0, 'mask'), (1, 2, 3, 'augment'),
              (12, 3, 3, 'mask'), (1, 23, 3, 'mask')]
    assert len({sample_key(*arguments) for arguments in [base, *others]}) == 7
    assert sample_key(*base) == sample_key(*base) == 8068647343963509432


def test_global_generators_are_left_as_they_were():
    with seeded_globals(1):
        inside = random.random(), np.random.rand(), torch.rand(1)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    with seeded_globals(1):
        assert (random.random(), np.random.rand(), torch.rand(1)) == inside
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_state_is_put_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), seeded_globals(1):
        torch.rand(1)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
