# SPDX-License-Identifier: Apache-2.0
"""What passes between the parts of a training step, and nothing else does.

Symbols used in every docstring: B images, N patches, V visible patches, M = N - V masked
patches, D encoder width, E decoder width, T target width.
"""
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


def pair(sizes: int | Iterable[int]) -> tuple[int, int]:
    """Height and width, or rows and columns; one number stands for both."""
    first, second = (sizes, sizes) if isinstance(sizes, int) else sizes
    return first, second


class TeacherOutput(NamedTuple):
    """What a target generator says of a batch.

    Attributes:
        features: (B, N + 1, T) with the CLS token first, or (B, N, T) from a generator that has
            none (pixels); patches in raster order.
        importance: (B, N), not negative; equal weights from a generator that measures none.
    """
    features: Tensor
    importance: Tensor


class MaskIds(NamedTuple):
    """Which patches the encoder sees.

    Attributes:
        visible: (B, V) raster indices of the patches seen.
        masked: (B, M) raster indices of the others. Each row of the two together is a permutation
            of ``range(N)``.
    """
    visible: Tensor
    masked: Tensor

    def order(self) -> Tensor:
        """(B, N) raster index of each token in the order the decoders use: visible, masked."""
        return torch.cat([self.visible, self.masked], dim=1)

    def arrange(self, tokens: Tensor) -> Tensor:
        """Brings raster tokens into the decoders' order, [CLS,] visible, masked.

        Args:
            tokens: (B or 1, N, C), or (B or 1, N + 1, C) with the CLS token first.

        Returns:
            The same tokens, (B, N, C) or (B, N + 1, C).
        """
        order = self.order()
        tokens = tokens.expand(order.shape[0], -1, -1)
        if tokens.shape[1] == order.shape[1]:
            return gather_tokens(tokens, order)
        return torch.cat([tokens[:, :1], gather_tokens(tokens[:, 1:], order)], dim=1)

    def to_raster(self, tokens: Tensor) -> Tensor:
        """The inverse of :meth:`arrange`, for whoever looks at predictions."""
        inverse = torch.argsort(self.order(), dim=1)
        if tokens.shape[1] == inverse.shape[1]:
            return gather_tokens(tokens, inverse)
        return torch.cat([tokens[:, :1], gather_tokens(tokens[:, 1:], inverse)], dim=1)

    def share_seen(self, importance: Tensor) -> Tensor:
        """(B,) which share of the importance (B, N) the visible patches have."""
        return importance.gather(1, self.visible).sum(dim=1) / importance.sum(dim=1)


def gather_tokens(tokens: Tensor, ids: Tensor) -> Tensor:
    """Takes tokens by index.

    Args:
        tokens: (B, L, C).
        ids: (B, K), each in ``range(L)``.

    Returns:
        (B, K, C).
    """
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
