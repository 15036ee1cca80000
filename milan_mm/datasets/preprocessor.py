# SPDX-License-Identifier: Apache-2.0
"""Normalises a batch on its device, and hands on the samples' keys."""
from mmpretrain.models import SelfSupDataPreprocessor

from ..registry import MODELS


@MODELS.register_module()
class PretrainDataPreprocessor(SelfSupDataPreprocessor):
    """mmpretrain's ``SelfSupDataPreprocessor`` that keeps ``sample_keys``.

    Args:
        mean, std: per channel, in 0..255; see ``SelfSupDataPreprocessor`` for the others.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Takes a batch of :class:`PackImageInputs`'s samples; ``sample_key`` may be absent."""
        keys = data.get('sample_key')
        batch = super().forward(
            dict(inputs=data['inputs'], data_samples=data.get('data_samples')), training)
        return dict(batch, sample_keys=None if keys is None else self.cast_data(keys))
