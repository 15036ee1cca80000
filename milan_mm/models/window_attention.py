# SPDX-License-Identifier: Apache-2.0
"""Attention within windows of a map of tokens, with relative positions."""

from functools import partial

import torch
import torch.nn.functional as F
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from . import chunked_attention
from .rotary import RotaryPositions, rotate


class WindowAttention(nn.Module):
    """Self-attention of ViTDet (arXiv 2203.16527, Sec. 3): windows or the whole map.

    Where the windows do not tile the map, those at its right and lower edge are smaller. ViTDet
    pads the map instead, and its padding is attended to; here nothing is padded and nothing leaks.

    The decomposed relative positions of MViTv2 (arXiv 2112.01526, Eq. 4) add
    ``q . rel_pos_h[row - row'] + q . rel_pos_w[column - column']`` to the score of two tokens.

    Args:
        plain: mmpretrain's attention, whose linear maps, drop path and scale are taken over.
        window_size: rows and columns of a window, or None for the whole map.
        table_size: rows and columns the relative positions are for: those of a window, or of the
            map that is usual.
        rotary: turns queries and keys by their places in the map; None where nothing does.

    Attributes:
        rel_pos_h, rel_pos_w: (2 * rows - 1, C) and (2 * columns - 1, C), for the differences from
            ``1 - rows`` to ``rows - 1``, with C the channels of a head; zero at first.
    """

    def __init__(self,
                 plain: MultiheadAttention,
                 window_size: tuple[int, int] | None,
                 table_size: tuple[int, int],
                 rotary: RotaryPositions | None = None) -> None:
        super().__init__()
        self.__dict__['rotary'] = rotary  # the backbone's, once among its tensors
        self.num_heads, self.head_dims = plain.num_heads, plain.head_dims
        self.window_size = window_size
        self.qkv, self.proj = plain.qkv, plain.proj
        self.attn_drop, self.proj_drop = plain.attn_drop, plain.proj_drop
        self.out_drop, self.gamma1 = plain.out_drop, plain.gamma1
        trained = plain.qkv.weight.requires_grad
        for name, size in zip(('rel_pos_h', 'rel_pos_w'), table_size):
            self.register_parameter(name, nn.Parameter(
                torch.zeros(2 * size - 1, self.head_dims), requires_grad=trained))

    def forward(self, x: Tensor) -> Tensor:
        """Attends.

        Args:
            x: (B, H, W, D) tokens in their places.

        Returns:
            (B, H, W, D)
        """
        x = self.everywhere(self.turned(self.qkv(x)))
        return self.out_drop(self.gamma1(self.proj_drop(self.proj(x))))

    def everywhere(self, qkv: Tensor) -> Tensor:
        """Attends in all windows: (B, H, W, 3 * D) give (B, H, W, D)."""
        rows, columns = qkv.shape[1:3]
        window = self.window_size or (rows, columns)
        heights, widths = _whole_and_rest(rows, window[0]), _whole_and_rest(columns, window[1])
        rel_h = self.relative(self.rel_pos_h, window[0])
        rel_w = self.relative(self.rel_pos_w, window[1])
        if not (self.training and self.attn_drop) and chunked_attention.suits(qkv, rel_h, rel_w):
            return chunked_attention.chunked_attention(qkv, rel_h, rel_w, self.num_heads)
        # Up to four regions, each of windows of one size: whole ones, the right and the lower
        # edge, the corner between them.
        bands = [[self.remember_less(region, (min(window[0], height), min(window[1], width)))
                  for region, width in zip(band.split(widths, dim=2), widths)]
                 for band, height in zip(qkv.split(heights, dim=1), heights)]
        return torch.cat([torch.cat(band, dim=2) for band in bands], dim=1)

    def turned(self, qkv: Tensor) -> Tensor:
        """(B, H, W, 3 * D) with queries and keys turned, where positions are rotary."""
        if self.rotary is None:
            return qkv
        parts = qkv.flatten(1, 2).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        both = rotate(parts[:2], self.rotary(qkv.shape[1:3]))
        return torch.cat([both, parts[2:]]).permute(1, 3, 0, 2, 4).reshape(qkv.shape)

    def remember_less(self, qkv: Tensor, window: tuple[int, int]) -> Tensor:
        """:meth:`attend`; in windows computed again in the backward pass, as it is cheap there."""
        if self.window_size is None or not torch.is_grad_enabled():
            return self.attend(qkv, window)
        return checkpoint(self.attend, qkv, window, use_reentrant=False,
                          preserve_rng_state=self.attn_drop > 0)

    def attend(self, qkv: Tensor, window: tuple[int, int]) -> Tensor:
        """Attends within the windows of a region that they tile.

        Args:
            qkv: (B, h, w, 3 * D) queries, keys and values.
            window: rows and columns.

        Returns:
            (B, h, w, D)
        """
        batch, (rows, columns) = qkv.shape[0], window
        down, across = qkv.shape[1] // rows, qkv.shape[2] // columns
        windows = qkv.reshape(batch, down, rows, across, columns, 3, self.num_heads, -1)
        # (3, B * windows, heads, rows, columns, C)
        q, k, v = windows.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(1, 3)
        out = relative_attention(
            q, k, v, self.relative(self.rel_pos_h, rows), self.relative(self.rel_pos_w, columns),
            self.attn_drop if self.training else 0.)
        out = out.reshape(batch, down, across, self.num_heads, rows, columns, -1)
        return out.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, down * rows, across * columns, -1)

    def relative(self, table: Tensor, size: int) -> Tensor:
        """Relative positions of queries and keys along one side.

        A smaller window has the middle of the table, as the same differences mean the same there.
        A whole map of another size has it stretched or compressed (linearly, as in ViTDet), as the
        absolute positions are.

        Args:
            table: (2 * S - 1, C).
            size: height and width of the window or map, in tokens.

        Returns:
            (size, size, C), query first.
        """
        surplus = (len(table) + 1) // 2 - size
        if surplus and self.window_size is None:
            table = F.interpolate(table.t()[None], size=2 * size - 1, mode='linear')[0].t()
        elif surplus:
            table = table[surplus:len(table) - surplus]
        place = torch.arange(size, device=table.device)
        return table[place[:, None] - place + size - 1]


def relative_attention(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor,
                       dropout: float = 0.) -> Tensor:
    """softmax(q . k / sqrt(C) + q . rel_h + q . rel_w) . v, without a table of N x N biases.

    The sum is one scalar product of longer vectors: the query with its products with all relative
    rows and columns behind it, and the key with a one at its row and a one at its column. So the
    kernels that need no N x N memory serve, forward and backward.

    Args:
        q, k, v: (B, heads, H, W, C), with N = H * W tokens.
        rel_h: (H, H, C), row of the query first.
        rel_w: (W, W, C), column of the query first.
        dropout: share of attention weights that are dropped.

    Returns:
        (B, heads, N, C)
    """
    rows, columns, channels = q.shape[2:]
    long_q = [q * channels**-0.5, torch.einsum('bnyxc,ykc->bnyxk', q, rel_h),
              torch.einsum('bnyxc,xkc->bnyxk', q, rel_w)]
    eye = partial(torch.eye, device=k.device, dtype=k.dtype)
    long_k = [k, eye(rows)[:, None].expand(*k.shape[:2], -1, columns, -1),
              eye(columns).expand(*k.shape[:2], rows, -1, -1)]
    width = channels + rows + columns
    # Kernels on CUDA want a multiple of 8. The flash kernel of the CPU wants values as wide as
    # keys: without it 12 heads of 4096 tokens keep 0.8 GB of weights a block and image, and the
    # wider values and result 0.05 GB. On CUDA the memory-efficient kernel takes narrow values.
    spare = -width % 8
    if spare:
        long_q.append(q.new_zeros(()).expand(*q.shape[:-1], spare))
        long_k.append(k.new_zeros(()).expand(*k.shape[:-1], spare))
    if v.device.type == 'cpu':
        v = F.pad(v, (0, width + spare - channels))
    out = F.scaled_dot_product_attention(
        torch.cat(long_q, dim=-1).flatten(2, 3), torch.cat(long_k, dim=-1).flatten(2, 3),
        v.flatten(2, 3), dropout_p=dropout, scale=1.)
    return out[..., :channels]


def _whole_and_rest(length: int, window: int) -> list[int]:
    """What whole windows cover of a length, and what they leave; without zeros."""
    whole = length // window * window
    return [part for part in (whole, length - whole) if part]
