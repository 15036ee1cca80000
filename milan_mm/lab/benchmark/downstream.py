# SPDX-License-Identifier: Apache-2.0
"""How much memory a forward and backward pass of a detector's backbone takes."""
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmpretrain.models import ViTSAM
from torch import Tensor, nn

from ...architectures import ARCHITECTURES
from ...errors import MilanError
from ...models.encoder import MaskedVisionTransformer, check_tiling
from ...models.vit_det import WindowedVisionTransformer
from ...models.window_attention import WindowAttention
from .measuring import available_bytes, in_own_process, peak_mb, report

_PATCH = 16


class Variant(NamedTuple):
    """One line of the table: what it is, and how its backbone is built."""
    label: str
    build: Callable[[str, int], nn.Module]


class TableAttention(WindowAttention):
    """The same attention as most ports write it: tables of N x N scores, biases and weights."""

    def everywhere(self, qkv: Tensor) -> Tensor:
        if self.window_size is not None:
            raise NotImplementedError('only the whole map is measured')
        batch, rows, columns = qkv.shape[:3]
        q, k, v = qkv.reshape(batch, rows * columns, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        grid = q.unflatten(2, (rows, columns))
        high = torch.einsum('bnyxc,ykc->bnyxk', grid, self.relative(self.rel_pos_h, rows))
        wide = torch.einsum('bnyxc,xkc->bnyxk', grid, self.relative(self.rel_pos_w, columns))
        bias = (high[..., :, None] + wide[..., None, :]).flatten(4).flatten(2, 3)
        weights = (q * self.head_dims**-0.5 @ k.transpose(2, 3) + bias).softmax(dim=-1)
        return (weights @ v).transpose(1, 2).reshape(batch, rows, columns, -1)


def _windowed(arch: str, size: int, **options: Any) -> nn.Module:
    return WindowedVisionTransformer(arch, size, _PATCH, **options)


def _global(arch: str, size: int) -> nn.Module:
    return _windowed(arch, size, global_indices=range(ARCHITECTURES[arch]['num_layers']))


def _plain(arch: str, size: int) -> nn.Module:
    return MaskedVisionTransformer(arch, size, _PATCH, out_type='featmap', final_norm=False)


def _tables(arch: str, size: int) -> nn.Module:
    backbone = _global(arch, size)
    for layer in backbone.layers:
        layer.attn.__class__ = TableAttention  # the same parameters
    return backbone


def _theirs(arch: str, size: int) -> nn.Module:
    last = [indices[-1] for indices in torch.arange(ARCHITECTURES[arch]['num_layers']).chunk(4)]
    arch_and_blocks = dict(ARCHITECTURES[arch], global_attn_indexes=[int(index) for index in last])
    return ViTSAM(arch_and_blocks, size, _PATCH, out_channels=0)


VARIANTS: dict[str, Variant] = dict(
    windowed=Variant('windows of 14 and 4 global blocks, relative positions', _windowed),
    checkpointed=Variant('the same, with_cp=True',
                         lambda arch, size: _windowed(arch, size, with_cp=True)),
    mmpretrain=Variant("the same in mmpretrain's ViTSAM", _theirs),
    relative=Variant('all blocks global, relative positions', _global),
    plain=Variant('all blocks global, no relative positions (plain ViT)', _plain),
    tables=Variant('all blocks global, relative positions as N x N tables', _tables),
)


def benchmark(arch: str = 'vit-b', img_size: int = 1024, batch_size: int = 1,
              variants: Sequence[str] = tuple(VARIANTS),
              json_file: str | Path | None = None) -> None:
    """Prints a table, each line measured in a process of its own.

    Args:
        arch: one of ``ARCHITECTURES``.
        img_size: side of the images in pixels.
        batch_size: number of images.
        variants: which of :data:`VARIANTS`.
        json_file: see :func:`report`.

    Raises:
        MilanError: if the patches do not tile the image, or a measurement fails.
    """
    check_tiling(img_size, _PATCH)
    if batch_size < 1:
        raise MilanError(f'--batch-size must be at least 1, got {batch_size}')
    rows = []
    for name in variants:
        row: dict[str, Any] = dict(backbone=VARIANTS[name].label)
        need, free = table_bytes(arch, img_size, batch_size, name), available_bytes()
        if need and 1.8 * need > free:  # with all the rest beside the tables
            row['peak GiB'] = (f'not run: the tables kept are {need / 2**30:.1f} GiB, '
                               f'{free / 2**30:.1f} are free')
        else:
            print(f'measuring: {row["backbone"]}', flush=True)
            result = in_own_process(__name__, 'measure', name, arch, img_size, batch_size)
            row.update({'peak GiB': result['peak_mb'] / 1024,
                        'processor seconds': result['seconds']})
        rows.append(row)
    report(f'Forward and backward of a backbone: {arch}, {img_size} x {img_size} pixels, '
           f'{batch_size} images, float32, CPU', rows, json_file)


def measure(name: str, arch: str, size: int, batch: int) -> dict[str, float]:
    """One forward and backward pass in training mode on random pixels, on the CPU.

    Args:
        name: of :data:`VARIANTS`.
        arch: of ``ARCHITECTURES``.
        size: side of the image in pixels.
        batch: images.

    Returns:
        ``peak_mb``: the largest resident memory of this process so far, with libraries, weights
        and their gradients; ``seconds`` of the processor for both passes.
    """
    backbone = VARIANTS[name].build(arch, size)
    backbone.train()
    pixels = torch.randn(batch, 3, size, size)
    start = time.process_time()
    backbone(pixels)[-1].square().mean().backward()
    return dict(peak_mb=peak_mb(), seconds=time.process_time() - start)


def table_bytes(arch: str, size: int, batch: int, name: str = 'tables') -> int:
    """What the N x N weights that a variant keeps for the backward pass take in float32."""
    sizes, tokens = ARCHITECTURES[arch], (size // _PATCH)**2
    blocks = dict(tables=sizes['num_layers'], mmpretrain=4).get(name, 0)
    return 4 * batch * blocks * sizes['num_heads'] * tokens**2
