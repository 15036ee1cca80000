# SPDX-License-Identifier: Apache-2.0
"""How seed and epoch reach a sample: they travel with its index."""
from collections.abc import Iterator

from mmengine.dataset import DefaultSampler

from ..registry import DATA_SAMPLERS


class SampleIndex(int):
    """An index that knows the run's seed and the epoch it was drawn in.

    Workers that live through all epochs hold a copy of the dataset made in the first; an
    attribute set on the dataset would not reach them, the index does.
    """
    seed: int
    epoch: int

    def __new__(cls, index: int, seed: int, epoch: int) -> 'SampleIndex':
        self = super().__new__(cls, index)
        self.seed, self.epoch = seed, epoch
        return self

    def __reduce__(self) -> tuple:
        return SampleIndex, (int(self), self.seed, self.epoch)


@DATA_SAMPLERS.register_module()
class EpochSampler(DefaultSampler):
    """mmengine's ``DefaultSampler``, its indices being :class:`SampleIndex`.

    The order is drawn from (seed, epoch) for all processes together and dealt out in turn, so a
    global batch holds the same images on any number of processes.
    """

    def __iter__(self) -> Iterator[SampleIndex]:
        for index in super().__iter__():
            yield SampleIndex(index, self.seed, self.epoch)
