# SPDX-License-Identifier: Apache-2.0
"""What passes between the parts of a training step, and nothing else does.

Symbols used in every docstring: B images, N patches, V visible patches, M = N - V masked
patches, D encoder width, E decoder width, T target width. Where a mask generator draws k masks of
an image, those are neighbours, and B is k times as large in all that follows it.
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
        masked: (B, M) raster indices of the others, which are predicted. Each row of the two
            together is a permutation of ``range(N)``.
        skipped: how many patches a row are neither seen nor predicted; those two leave them out.
    """
    visible: Tensor
    masked: Tensor
    skipped: int = 0

    def num_patches(self) -> int:
        """N; no property, which torch 2.5 cannot compile in a named tuple."""
        return self.visible.shape[1] + self.masked.shape[1] + self.skipped

    def order(self) -> Tensor:
        """(B, N) raster index of each token in the order the decoders use: visible, masked."""
        return torch.cat([self.visible, self.masked], dim=1)

    def arrange(self, tokens: Tensor) -> Tensor:
        """Brings raster tokens into the decoders' order, [CLS,] visible, masked.

        Args:
            tokens: (B or 1, N, C), or (B or 1, N + 1, C) with the CLS token first; one row for
                all masks of an image will do.

        Returns:
            The same tokens, (B, N, C) or (B, N + 1, C), without those skipped.
        """
        order = self.order()
        if tokens.shape[1] == self.num_patches():
            return gather_tokens(tokens, order)
        return torch.cat([repeat_for(order, tokens[:, :1]), gather_tokens(tokens[:, 1:], order)],
                         dim=1)

    def to_raster(self, tokens: Tensor) -> Tensor:
        """The inverse of :meth:`arrange`, for whoever looks at predictions of all patches."""
        inverse = torch.argsort(self.order(), dim=1)
        if tokens.shape[1] == inverse.shape[1]:
            return gather_tokens(tokens, inverse)
        return torch.cat([tokens[:, :1], gather_tokens(tokens[:, 1:], inverse)], dim=1)

    def share_seen(self, importance: Tensor) -> Tensor:
        """(B,) which share of the importance (B, N) the visible patches have."""
        importance = repeat_for(self.visible, importance)
        return importance.gather(1, self.visible).sum(dim=1) / importance.sum(dim=1)


def gather_tokens(tokens: Tensor, ids: Tensor) -> Tensor:
    """Takes tokens by index.

    Args:
        tokens: (B, L, C), or fewer rows, each for as many neighbouring rows of ids.
        ids: (B, K), each in ``range(L)``.

    Returns:
        (B, K, C).
    """
    index = ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
    rows = len(ids) // len(tokens)
    if rows == 1:
        return tokens.gather(1, index)
    shared = tokens.unsqueeze(1).expand(-1, rows, -1, -1)  # not copied
    return shared.gather(2, index.unflatten(0, (-1, rows))).flatten(0, 1)


def repeat_for(ids: Tensor, rows: Tensor) -> Tensor:
    """Rows of images for the rows of ids, several neighbours of which may be of one image."""
    return rows if len(rows) == len(ids) else rows.repeat_interleave(len(ids) // len(rows), dim=0)
