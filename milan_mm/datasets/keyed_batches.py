# SPDX-License-Identifier: Apache-2.0
"""Any loader's batches, from any of them on, each sample drawn by a key of its own."""
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from ..keyed_random import sample_key, seeded_globals
from .keyed_images import KeyedImages
from .sampler import SampleIndex


class KeyedBatches:
    """A loader's batch sampler that can begin anywhere, and whose indices know their draw.

    An index carries seed and epoch; of a sampler without end, as of iteration-based runs, the
    number of the batch stands for the epoch. What is left out is counted off, not loaded.

    Args:
        batches: the batch sampler.
        sampler: what it draws from.

    Attributes:
        first: number of the batch that the next pass begins with; 0 again after that.
    """

    def __init__(self, batches: Any, sampler: Any) -> None:
        self.batches, self.sampler, self.first = batches, sampler, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __getattr__(self, name: str) -> Any:
        if name == 'batches':  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self.batches, name)

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        first, self.first = self.first, 0
        seed, epoch = getattr(self.sampler, 'seed', None) or 0, getattr(self.sampler, 'epoch', None)
        for number, batch in islice(enumerate(self.batches), first, None):
            yield [index if isinstance(index, SampleIndex) else SampleIndex(
                index, seed, number if epoch is None else epoch) for index in batch]


class _KeyedSamples:
    """What PyTorch's loader calls for a batch: each sample with its own generators.

    OpenMMLab's transforms, and their datasets in search of another image, draw from the global
    ones, which in a worker go on from sample to sample.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __call__(self, indices: Sequence[SampleIndex]) -> list:
        samples = []
        for index in indices:
            with seeded_globals(sample_key(index.seed, index.epoch, int(index), 'augment')):
                samples.append(self.dataset[index])
        return samples


def key_batches(loader: DataLoader) -> KeyedBatches | None:
    """Makes a loader's batches and samples keyed ones; None for a stream, which has no indices."""
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        return None
    dataset: Any = loader.dataset
    if not isinstance(dataset, KeyedImages):  # which does so itself
        dataset.__getitems__ = _KeyedSamples(dataset)
    keyed = KeyedBatches(loader.batch_sampler, getattr(
        loader.batch_sampler, 'sampler', loader.sampler))
    vars(loader)['batch_sampler'] = keyed  # a loader forbids it, and looks there at each pass
    return keyed
