# SPDX-License-Identifier: Apache-2.0
"""Several sources of images in one epoch, each with its weight."""
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import MilanError
from ..registry import DATASETS
from .keyed_images import KeyedImages
from .sampler import SampleIndex


@DATASETS.register_module()
class ImageMixture(KeyedImages):
    """Images of several sources; see also :class:`KeyedImages`.

    A source of n images and weight w gives round(n w) samples an epoch. With a weight of 2 each of
    its images is seen twice, and augmented in two ways; with one of 0.5 half of them is, and the
    other half in the next epoch.

    Args:
        datasets: configs of the sources; their own pipelines are not used.
        weights: one for each source, above 0; None for 1 each.
        pipeline: transforms, the first of them :class:`LoadPILImage`.
        **kwargs: as of ``BaseDataset``.

    Raises:
        MilanError: if there is not one weight above 0 for each source.
    """

    def __init__(self, datasets: Sequence[dict], weights: Sequence[float] | None = None,
                 pipeline: Sequence[dict | Callable] = (), **kwargs: Any) -> None:
        self.datasets, self.weights = datasets, weights or [1] * len(datasets)
        if len(self.weights) != len(datasets) or min(self.weights, default=0) <= 0:
            raise MilanError(f'ImageMixture: expected a weight above 0 for each of the '
                             f'{len(datasets)} data sets, got {weights}')
        super().__init__(pipeline=list(pipeline), **kwargs)

    def full_init(self) -> None:
        """Builds the sources, instead of one list."""
        if self._fully_initialized:
            return
        self.sources = [DATASETS.build(dict(config)) for config in self.datasets]
        self.counts = [max(1, round(len(source) * weight))
                       for source, weight in zip(self.sources, self.weights)]
        self.ends = np.cumsum(self.counts)
        self.data_root = ', '.join(str(source.data_root) for source in self.sources)
        self._fully_initialized = True

    def __len__(self) -> int:
        return int(self.ends[-1])

    def get_data_info(self, idx: int | SampleIndex) -> dict:
        number = int(np.searchsorted(self.ends, int(idx), side='right'))
        source, count = self.sources[number], self.counts[number]
        turn = getattr(idx, 'epoch', 0) * count + int(idx) - int(self.ends[number]) + count
        return dict(source.get_data_info(turn % len(source)), sample_idx=int(idx))
