# SPDX-License-Identifier: Apache-2.0
"""Rotary positions of two axes, as DINOv3 has them, for mmpretrain's blocks."""
import math

import torch
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, nn

from ..compat.cpu_attention import attention
from ..positions import rotary_periods


class RotaryPositions(nn.Module):
    """Angles by which queries and keys of a patch are turned (RoPE, arXiv 2104.09864).

    A patch's row and column, at its middle and scaled to -1..1 over the image, are each divided by
    C / 4 periods; the result, in turns, comes twice, for the two halves of a head's channels
    (DINOv3, arXiv 2508.10104).

    Args:
        head_dims: C, channels of a head; a multiple of 4.
        base: the periods are ``base ** (k / (C / 4))`` for k from 0.

    Attributes:
        periods: (C / 4, ), part of the weights, as files may bring their own.
    """
    periods: Tensor

    def __init__(self, head_dims: int, base: float = 100.) -> None:
        super().__init__()
        self.register_buffer('periods', rotary_periods(head_dims, base))

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """Rows and columns of patches give angles (N, C) in raster order."""
        periods = self.periods.float()
        y, x = torch.meshgrid(*((torch.arange(side, device=periods.device) + .5) / side * 2 - 1
                                for side in grid), indexing='ij')
        angles = 2 * math.pi * torch.stack([y, x], dim=-1)[..., None] / periods
        return angles.flatten(2).flatten(0, 1).repeat(1, 2)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turns the last tokens of queries or keys; those before them (CLS, registers) have no place.

    Args:
        x: (..., L, C).
        angles: (..., N, C) of the last N tokens.
    """
    prefix = x.shape[-2] - angles.shape[-2]
    still, turned = x[..., :prefix, :], x[..., prefix:, :]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()
    return torch.cat([still, turned.to(x.dtype)], dim=-2)


class RotaryAttention(nn.Module):
    """mmpretrain's attention with rotary positions.

    Args:
        plain: whose linear maps, drop path and scale are taken over.
    """

    def __init__(self, plain: MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, self.head_dims = plain.num_heads, plain.head_dims
        self.qkv, self.proj = plain.qkv, plain.proj
        self.attn_drop, self.proj_drop = plain.attn_drop, plain.proj_drop
        self.out_drop, self.gamma1 = plain.out_drop, plain.gamma1

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """x (B, L, D) and angles (N, C), or (B, 1, V, C), of its last tokens give (B, L, D)."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dims))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = attention(
            rotate(query, angles), rotate(key, angles), value,
            dropout_p=self.attn_drop if self.training else 0.)
        x = x.transpose(1, 2).flatten(2)
        return self.out_drop(self.gamma1(self.proj_drop(self.proj(x))))


class RotaryBlock(nn.Module):
    """mmpretrain's encoder layer whose attention has rotary positions.

    Args:
        plain: whose norms, attention and MLP are taken over, under the same names.
    """

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        self.embed_dims = plain.embed_dims
        self.ln1, self.ln2, self.ffn = plain.ln1, plain.ln2, plain.ffn
        self.attn = RotaryAttention(plain.attn)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """Tokens (B, L, D) and the angles of the last of them give tokens."""
        x = x + self.attn(self.ln1(x), angles)
        return self.ffn(self.ln2(x), identity=x)
