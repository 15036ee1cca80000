# SPDX-License-Identifier: Apache-2.0
"""Centred kernel alignment: how alike are two layers, whatever their widths and axes?"""
from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import MilanError

_LEAST = 4  # examples that the unbiased estimator needs


class MinibatchCKA:
    """Linear CKA of every row layer with every column layer, summed up batch by batch.

    CKA (Kornblith et al. 2019, arXiv 1905.00414) is HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)) of
    linear kernels: 1 for layers that are the same up to rotation, shift and scale, 0 for
    independent ones. Here each HSIC is the mean over batches of its *unbiased* estimate (Song et
    al. 2012; Nguyen et al. 2021, arXiv 2010.15327, Eq. 3), so the result does not depend on the
    size of a batch but for noise, needs no D x D' matrix, and can be a little below 0.
    """

    def __init__(self) -> None:
        self.batches = 0
        self._cross: Tensor | None = None
        self._rows: Tensor | None = None
        self._columns: Tensor | None = None

    def add(self, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> None:
        """Takes a batch in.

        Args:
            rows: for each row layer its features (n, D) of the same n examples.
            columns: for each column layer, (n, D'); widths may differ from layer to layer.
        """
        own, other = (torch.stack([_gram(layer) for layer in layers])
                      for layers in (rows, columns))
        sums = (unbiased_hsic(own[:, None], other[None]), unbiased_hsic(own, own),
                unbiased_hsic(other, other))
        if self.batches:
            sums = (self._cross + sums[0], self._rows + sums[1], self._columns + sums[2])
        self._cross, self._rows, self._columns = sums
        self.batches += 1

    def value(self) -> Tensor:
        """(rows, columns) float64; NaN where a layer does not tell examples apart.

        Raises:
            MilanError: if no batch was taken in.
        """
        if self._cross is None:
            raise MilanError('CKA has seen no batch: there are too few images')
        scale = self._rows[:, None] * self._columns[None]
        return torch.where(scale > 0, self._cross / scale.clamp_min(0).sqrt(), torch.nan)


def unbiased_hsic(first: Tensor, second: Tensor) -> Tensor:
    """The unbiased estimate of HSIC from two Gram matrices with zero diagonals.

    Args:
        first: (..., n, n) symmetric.
        second: the same; leading dimensions broadcast.

    Returns:
        (...) the estimate. Its scale is that of the kernels.
    """
    n = first.shape[-1]
    columns = first.sum(dim=-1), second.sum(dim=-1)
    trace = (first * second).sum(dim=(-2, -1))
    both = columns[0].sum(dim=-1) * columns[1].sum(dim=-1) / ((n - 1) * (n - 2))
    mixed = (columns[0] * columns[1]).sum(dim=-1) * 2 / (n - 2)
    return (trace + both - mixed) / (n * (n - 3))


def _gram(features: Tensor) -> Tensor:
    """Linear kernel (n, n) without its diagonal, in float64: HSIC is a difference of big sums."""
    if len(features) < _LEAST:
        raise MilanError(f'CKA compares examples of a batch and needs at least {_LEAST}, got '
                         f'{len(features)}; give more images, or a larger --batch-size')
    features = features.double()
    centred = features - features.mean(dim=0)  # changes nothing but the rounding
    gram = centred @ centred.T
    return gram - torch.diag(gram.diagonal())
