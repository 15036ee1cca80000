# SPDX-License-Identifier: Apache-2.0
"""Attention with decomposed relative positions on a CPU: a few scores at a time."""
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 2**19
"""Scores computed at a time: 2 MiB of float32, about what a core's caches hold."""
PART = 2**20
"""Queries, or keys, or values copied at a time, in numbers; but at least a row of windows."""


def suits(qkv: Tensor, rel_h: Tensor, rel_w: Tensor) -> bool:
    """Whether :func:`chunked_attention` is to be had: float32 or float64, CPU, no compiler."""
    return (qkv.device.type == 'cpu' and qkv.dtype in (torch.float32, torch.float64)
            and qkv.dtype == rel_h.dtype == rel_w.dtype and not torch.compiler.is_compiling())


def chunked_attention(qkv: Tensor, rel_h: Tensor, rel_w: Tensor, heads: int) -> Tensor:
    """softmax(q . k / sqrt(C) + q . rel_h + q . rel_w) . v in each window.

    Nothing but ``qkv`` is kept for the gradient, which computes the scores once more. The flash
    kernel of the CPU needs the biases as C + H + W channels of queries, keys and values, and
    multiplies those seven times: three times the work in a map of 64 x 64 and heads of 64.

    Args:
        qkv: (B, H, W, 3 * D) queries, keys and values, each of ``heads`` times C channels.
        rel_h: (h, h, C), row of the query first, for windows of h rows.
        rel_w: (w, w, C), column of the query first, for windows of w columns. Windows at the
            right and lower edge may be smaller.
        heads: their number.

    Returns:
        (B, H, W, D)
    """
    return _Attention.apply(qkv, rel_h, rel_w, heads)


class _Attention(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, rel_h: Tensor, rel_w: Tensor, heads: int) -> Tensor:
        ctx.save_for_backward(qkv, rel_h, rel_w)
        ctx.heads = heads
        out = torch.empty_like(qkv[..., :qkv.shape[-1] // 3])
        for at, (rows, columns) in _regions(qkv, rel_h, rel_w):
            q, k, v = (_windows(part[at], heads, rows, columns).flatten(0, 3)
                       for part in qkv.chunk(3, dim=-1))
            target = _windows(out[at], heads, rows, columns)
            target.copy_(_attended(q, k, v, rel_h[:rows, :rows], rel_w[:columns, :columns]).view(
                target.shape))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, wanted: Tensor) -> tuple[Tensor | None, ...]:
        qkv, rel_h, rel_w = ctx.saved_tensors
        to_qkv = torch.empty_like(qkv)
        to_rel = torch.zeros_like(rel_h), torch.zeros_like(rel_w)
        for at, (rows, columns) in _regions(qkv, rel_h, rel_w):
            q, k, v, grad = (_windows(part[at], ctx.heads, rows, columns).flatten(0, 3)
                             for part in (*qkv.chunk(3, dim=-1), wanted))
            grads = _gradients(q, k, v, grad, rel_h[:rows, :rows], rel_w[:columns, :columns],
                               to_rel[0][:rows, :rows], to_rel[1][:columns, :columns])
            for whole, part in zip(to_qkv.chunk(3, dim=-1), grads):
                target = _windows(whole[at], ctx.heads, rows, columns)
                target.copy_(part.view(target.shape))
        return to_qkv, *to_rel, None


def _attended(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """Of (P, h, w, C) queries, keys and values, with P pairs of a window and a head."""
    result = q.new_empty(q.shape)
    for some, row in _chunks(*q.shape[:3]):
        weights = _weights(q[some, row], k[some], rel_h[row], rel_w)
        result[some, row] = (weights @ v[some].flatten(1, 2)).unflatten(1, (-1, q.shape[2]))
    return result


def _gradients(q: Tensor, k: Tensor, v: Tensor, wanted: Tensor, rel_h: Tensor, rel_w: Tensor,
               to_rel_h: Tensor, to_rel_w: Tensor) -> tuple[Tensor, ...]:
    """Of (P, h, w, C) queries, keys and values; those of both tables are added in place."""
    rows, columns, scale = *q.shape[1:3], q.shape[-1]**-0.5
    to_q, to_k, to_v = q.new_empty(q.shape), k.new_zeros(k.shape), v.new_zeros(v.shape)
    for some, row in _chunks(*q.shape[:3]):
        queries, grad = q[some, row], wanted[some, row].flatten(1, 2)
        weights = _weights(queries, k[some], rel_h[row], rel_w)
        to_v[some].flatten(1, 2).baddbmm_(weights.mT, grad)
        scores = torch._softmax_backward_data(
            grad @ v[some].flatten(1, 2).mT, weights, -1, q.dtype)
        to_k[some].flatten(1, 2).baddbmm_(scores.mT, queries.flatten(1, 2), alpha=scale)
        grid = scores.view(len(scores), -1, columns, rows, columns)
        high, wide = grid.sum(-1), grid.sum(-2)
        to_q[some, row] = (
            (scores @ k[some].flatten(1, 2)).mul_(scale).unflatten(1, (-1, columns))
            + torch.einsum('pyxk,ykc->pyxc', high, rel_h[row])
            + torch.einsum('pyxk,xkc->pyxc', wide, rel_w))
        to_rel_h[row] += torch.einsum('pyxk,pyxc->ykc', high, queries)
        to_rel_w += torch.einsum('pyxk,pyxc->xkc', wide, queries)
    return to_q, to_k, to_v


def _weights(q: Tensor, k: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """(P, y * w, N): how much queries (P, y, w, C) of some rows attend to keys (P, h, w, C)."""
    high = torch.einsum('pyxc,ykc->pyxk', q, rel_h)
    wide = torch.einsum('pyxc,xkc->pyxk', q, rel_w)
    scores = (high[..., :, None] + wide[..., None, :]).flatten(3).flatten(1, 2)
    scores.baddbmm_(q.flatten(1, 2), k.flatten(1, 2).mT, alpha=q.shape[-1]**-0.5)
    return scores.softmax(dim=-1)


def _windows(pixels: Tensor, heads: int, rows: int, columns: int) -> Tensor:
    """(B, down * rows, across * columns, D) seen as (B, down, across, heads, rows, columns, C)."""
    return pixels.unflatten(1, (-1, rows)).unflatten(3, (-1, columns)).unflatten(
        5, (heads, -1)).permute(0, 1, 3, 5, 2, 4, 6)


def _regions(qkv: Tensor, rel_h: Tensor, rel_w: Tensor) -> Iterator[
        tuple[tuple[slice, slice, slice], tuple[int, int]]]:
    """Parts of images with windows of one size, and that size."""
    batch, height, width, channels = qkv.shape
    for left, right, columns in _whole_and_rest(width, len(rel_w)):
        for top, bottom, rows in _whole_and_rest(height, len(rel_h)):
            line = rows * (right - left) * channels // 3  # windows side by side
            images = max(1, PART // (line * ((bottom - top) // rows)))
            high = rows * max(1, PART // line)
            for first in range(0, batch, images):
                for start in range(top, bottom, high):
                    yield ((slice(first, first + images), slice(start, min(bottom, start + high)),
                            slice(left, right)), (rows, columns))


def _whole_and_rest(length: int, window: int) -> list[tuple[int, int, int]]:
    """Start, end and window of what whole windows cover of a length, and of what they leave."""
    whole = length // window * window
    return [part for part in ((0, whole, window), (whole, length, length - whole))
            if part[0] < part[1]]


def _chunks(pairs: int, rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Pairs of a window and a head, and rows of queries in them: each row of each pair once."""
    tokens = rows * columns
    some = max(1, CHUNK // tokens**2)
    high = rows if some > 1 else max(1, CHUNK // (columns * tokens))
    for pair in range(0, pairs, some):
        for row in range(0, rows, high):
            yield slice(pair, pair + some), slice(row, row + high)
