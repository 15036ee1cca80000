# SPDX-License-Identifier: Apache-2.0
"""Normalises a batch on its device, and hands on the samples' keys."""
from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.models import SelfSupDataPreprocessor

from ..errors import MilanError
from ..registry import MODELS


@MODELS.register_module()
class PretrainDataPreprocessor(SelfSupDataPreprocessor):
    """mmpretrain's ``SelfSupDataPreprocessor`` that keeps ``sample_keys``.

    Args:
        mean, std: per channel, of which there may be any number, in 0..255; None for none.
        **kwargs: as of ``SelfSupDataPreprocessor``.

    Raises:
        MilanError: if there are not as many of both, or a deviation is not above 0.
    """

    def __init__(self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if mean is None and std is None:
            return
        if mean is None or std is None or len(mean) != len(std) or min(std, default=0) <= 0:
            raise MilanError('data_preprocessor: expected a mean and a std above 0 for each '
                             f'channel, got mean={mean}, std={std}')
        self._enable_normalize = True
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Takes a batch of :class:`PackImageInputs`'s samples; ``sample_key`` may be absent."""
        keys = data.get('sample_key')
        batch = super().forward(
            dict(inputs=data['inputs'], data_samples=data.get('data_samples')), training)
        return dict(batch, sample_keys=None if keys is None else self.cast_data(keys))
