# SPDX-License-Identifier: Apache-2.0
"""What every source of training images promises, be it a folder, a list or shards."""
from typing import Any

from mmengine.dataset import BaseDataset
from torch import Tensor

from ..errors import MilanError, UnreadableImageError
from ..keyed_random import sample_key, seeded_globals
from .loading import MAX_TRIES, all_unreadable
from .sampler import SampleIndex


class KeyedImages(BaseDataset):
    """Images whose augmentation is a function of (seed, epoch, sample), and none of which is fatal.

    What the pipeline draws at random depends on nothing else, if the indices come from
    :class:`EpochSampler`. And an image that cannot be decoded is replaced by another, drawn by the
    same key, with its path noted in ``unreadable``; :class:`UnreadableImagesHook` counts and names
    them. In ``test_mode`` it gives None instead.

    Args:
        fixed_views: number of views that there are of an image: an epoch has the crops that the one
            so many before had, and masks and an order of its own. None for new ones each time.
        **kwargs: as of ``BaseDataset``.

    Raises:
        MilanError: if it is no number from 1.
    """
    _fully_initialized: bool

    def __init__(self, *args: Any, fixed_views: int | None = None, **kwargs: Any) -> None:
        if fixed_views is not None and (type(fixed_views) is not int or fixed_views < 1):
            raise MilanError(f'fixed_views must be a whole number from 1, got {fixed_views!r}: it '
                             'is how many crops there are of an image')
        self.fixed_views = fixed_views
        super().__init__(*args, **kwargs)

    def __getitem__(self, idx: int | SampleIndex) -> dict | None:
        if not self._fully_initialized:
            self.full_init()
        unreadable: list[str] = []
        view = self._view(idx)
        for attempt in range(MAX_TRIES):
            try:
                return self._run_pipeline(self._nth_choice(view, attempt), view, idx, unreadable)
            except UnreadableImageError as error:
                if self.test_mode:
                    return None
                unreadable.append(self.path(self._nth_choice(view, attempt)))
                last = error
        raise all_unreadable(last)

    def path(self, index: int) -> str:
        """Of an image's file."""
        return self.get_data_info(index)['img_path']

    def pixels(self, index: int) -> Tensor | None:
        """What the pipeline makes of an image, uint8 (3, H, W); None if it cannot be decoded."""
        sample = self[index]
        return None if sample is None else sample['inputs']

    def _view(self, idx: int | SampleIndex) -> int:
        """The index in the epoch whose crops this one has."""
        if self.fixed_views is None or not isinstance(idx, SampleIndex):
            return idx
        return SampleIndex(int(idx), idx.seed, idx.epoch % self.fixed_views)

    def _nth_choice(self, idx: int, attempt: int) -> int:
        """The sample itself, then substitutes that depend on nothing but the sample's key."""
        if attempt == 0:
            return idx
        seed, epoch = getattr(idx, 'seed', 0), getattr(idx, 'epoch', 0)
        other = sample_key(seed, epoch, int(idx), f'substitute {attempt}') % len(self)
        return SampleIndex(other, seed, epoch)

    def _run_pipeline(self, chosen: int, view: int, idx: int, unreadable: list[str]) -> dict:
        data = self.get_data_info(chosen)
        data['unreadable'] = tuple(unreadable)
        if not isinstance(idx, SampleIndex) or not isinstance(view, SampleIndex):
            return self.pipeline(data)
        data['epoch'] = idx.epoch
        data['sample_key'] = sample_key(idx.seed, idx.epoch, int(idx), 'mask')
        if self.fixed_views is not None:
            data['view'] = int(view) * self.fixed_views + view.epoch
        with seeded_globals(sample_key(view.seed, view.epoch, int(view), 'augment')):
            return self.pipeline(data)
