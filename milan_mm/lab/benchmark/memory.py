# SPDX-License-Identifier: Apache-2.0
"""How much memory a forward and backward pass of a detector's backbone takes."""
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...architectures import ARCHITECTURES
from ...engine.hooks import peak_memory_mb
from ...errors import MilanError
from ...models.encoder import MaskedVisionTransformer, check_tiling
from ...models.vit_det import WindowedVisionTransformer
from ...models.window_attention import WindowAttention

_PATCH = 16


class Variant(NamedTuple):
    """One line of the table: what it is, and how its backbone is built."""
    label: str
    build: Callable[[str, int], nn.Module]


class TableAttention(WindowAttention):
    """The same attention as most ports write it: tables of N x N scores, biases and weights."""

    def attend(self, qkv: Tensor, window: tuple[int, int]) -> Tensor:
        if window != tuple(qkv.shape[1:3]):
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


VARIANTS: dict[str, Variant] = dict(
    windowed=Variant('windows of 14 and 4 global blocks, relative positions', _windowed),
    checkpointed=Variant('the same, with_cp=True',
                         lambda arch, size: _windowed(arch, size, with_cp=True)),
    relative=Variant('all blocks global, relative positions', _global),
    plain=Variant('all blocks global, no relative positions (plain ViT)', _plain),
    tables=Variant('all blocks global, relative positions as N x N tables', _tables),
)


def measure_all(arch: str = 'vit-b', img_size: int = 1024, batch_size: int = 1,
                variants: Sequence[str] = tuple(VARIANTS)) -> None:
    """Prints a table in Markdown, each line measured in a process of its own.

    Args:
        arch: one of ``ARCHITECTURES``.
        img_size: side of the images in pixels.
        batch_size: number of images.
        variants: which of :data:`VARIANTS`.

    Raises:
        MilanError: if the patches do not tile the image, or a measurement fails.
    """
    check_tiling(img_size, _PATCH)
    if batch_size < 1:
        raise MilanError(f'--batch-size must be at least 1, got {batch_size}')
    print(f'{arch}, {img_size} x {img_size} pixels, {batch_size} images, float32; '
          f'{machine()}\n\n| backbone | peak memory | seconds |\n|---|---|---|', flush=True)
    for name in variants:
        need, free = table_bytes(arch, img_size, batch_size), available_bytes()
        if name == 'tables' and 1.8 * need > free:  # with all the rest beside the tables
            cell = (f'not run: the tables kept are {need / 2**30:.1f} GB, {free / 2**30:.1f} GB '
                    'are free | - |')
        else:
            result = _in_own_process(name, arch, img_size, batch_size)
            cell = f'{result["peak_mb"] / 1024:.2f} GB | {result["seconds"]:.0f} |'
        print(f'| {VARIANTS[name].label} | {cell}', flush=True)


def measure(name: str, arch: str, size: int, batch: int) -> dict[str, float]:
    """One forward and backward pass in training mode on random pixels, on the CPU.

    Args:
        name: of :data:`VARIANTS`.
        arch: of ``ARCHITECTURES``.
        size: side of the image in pixels.
        batch: images.

    Returns:
        ``peak_mb``: the largest resident memory of this process so far, with libraries, weights
        and their gradients; ``seconds`` for both passes.
    """
    backbone = VARIANTS[name].build(arch, size)
    backbone.train()
    pixels = torch.randn(batch, 3, size, size)
    start = time.perf_counter()
    backbone(pixels)[-1].square().mean().backward()
    return dict(peak_mb=_peak_mb(), seconds=time.perf_counter() - start)


def table_bytes(arch: str, size: int, batch: int) -> int:
    """What the attention weights of all blocks, kept for the backward pass, take in float32."""
    sizes, tokens = ARCHITECTURES[arch], (size // _PATCH)**2
    return 4 * batch * sizes['num_layers'] * sizes['num_heads'] * tokens**2


def available_bytes() -> float:
    """Memory that is free for use; infinite where the system does not say."""
    free = _field('/proc/meminfo', 'MemAvailable')
    return 1024. * free if free else float('inf')


def machine() -> str:
    """Processor, threads and version of torch."""
    names = [line.partition(':')[2].strip() for line in _lines('/proc/cpuinfo')
             if line.startswith('model name')]
    return (f'{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads, '
            f'torch {torch.__version__}')


def _in_own_process(name: str, arch: str, size: int, batch: int) -> dict[str, float]:
    code = (f'import json; from {__name__} import measure; '
            f'print(json.dumps(measure({name!r}, {arch!r}, {size}, {batch})))')
    done = subprocess.run([sys.executable, '-c', code], text=True, capture_output=True)
    if done.returncode:
        what = 'killed, out of memory' if done.returncode < 0 else done.stderr.strip()[-300:]
        raise MilanError(f'measuring {name} failed ({what}); leave it out with --variants, or take '
                         'a smaller --img-size or --batch-size')
    return json.loads(done.stdout.splitlines()[-1])


def _peak_mb() -> float:
    # ru_maxrss also counts what the process was before exec, which is its parent.
    peak = _field(f'/proc/{os.getpid()}/status', 'VmHWM')
    return peak / 1024 if peak else peak_memory_mb()


def _field(path: str, key: str) -> int:
    """A number in KB of one of Linux's files; 0 elsewhere."""
    for line in _lines(path):
        if line.startswith(f'{key}:'):
            return int(line.split()[1])
    return 0


def _lines(path: str) -> tuple[str, ...]:
    return tuple(Path(path).read_text().splitlines()) if os.path.exists(path) else ()
