# SPDX-License-Identifier: Apache-2.0
"""Positions that are not learned: sine-cosine ones for grids of any shape, rotary periods."""

import torch
from torch import Tensor

from .errors import MilanError


def sincos_positions(dim: int, grid_size: tuple[int, int]) -> Tensor:
    """Two-dimensional sine-cosine positions (MILAN Sec. 4, after MAE App. A.1).

    The first half of the channels encodes the column, the second the row; each half is sines,
    then cosines, of the coordinate times ``10000^(-2k/(dim/2))``.

    Args:
        dim: channels; a multiple of 4.
        grid_size: rows and columns of patches.

    Returns:
        (1, N + 1, dim) float32; row 0, the CLS token's, is zero.

    Raises:
        MilanError: if ``dim`` is not a multiple of 4.
    """
    if dim % 4:
        raise MilanError(f'sine-cosine positions need a width that is a multiple of 4, got {dim}')
    rows, cols = grid_size
    omega = 10000.0**-(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    y, x = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64),
        torch.arange(cols, dtype=torch.float64),
        indexing='ij')
    x = x.reshape(-1, 1) * omega
    y = y.reshape(-1, 1) * omega
    patches = torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)
    return torch.cat([torch.zeros(1, dim), patches.float()])[None]


def rotary_periods(head_dims: int, base: float = 100.) -> Tensor:
    """(C / 4, ) the periods that rotary positions start with.

    Raises:
        MilanError: if the channels of a head are no multiple of 4.
    """
    if head_dims % 4:
        raise MilanError(f'rotary positions need heads of a multiple of 4 channels, got '
                         f'{head_dims}: set num_heads to another divisor of embed_dims')
    return base**(torch.arange(head_dims // 4) / (head_dims // 4))
