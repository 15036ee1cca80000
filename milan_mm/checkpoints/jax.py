# SPDX-License-Identifier: Apache-2.0
"""ViTs of vision_transformer and big_vision (JAX) out of their ``.npz`` archives."""
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import MilanError

_BLOCK = re.compile(r'Transformer/encoderblock_(\d+)/(.+)')
# In big_vision modules of a kind are counted from 0, in vision_transformer all in one row.
_INNER = (
    (r'LayerNorm_0', 'norm1'), (r'LayerNorm_[12]', 'norm2'),
    (r'MultiHeadDotProductAttention_[01]/out', 'attn.proj'),
    (r'MlpBlock_[03]/Dense_0', 'mlp.fc1'), (r'MlpBlock_[03]/Dense_1', 'mlp.fc2'))
_OUTER = {'Transformer/encoder_norm': 'norm', 'embedding': 'patch_embed.proj'}
_WHOLE = {'cls': 'cls_token', 'Transformer/posembed_input/pos_embedding': 'pos_embed',
          'pos_embedding': 'pos_embed'}
_ATTENTION = r'MultiHeadDotProductAttention_[01]/(query|key|value)/(kernel|bias)'


def read_npz(path: Path) -> dict[str, Tensor]:
    """The arrays of an archive; nothing in it is unpickled."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: torch.from_numpy(np.array(archive[name])) for name in archive.files
                if archive[name].dtype.kind in 'fiub'}


def jax_vit(state: dict[str, Tensor], source: str) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors in timm's names and order of axes, and the names of the others.

    Raises:
        MilanError: if queries, keys and values of a block are not all there.
    """
    renamed: dict[str, Tensor] = {}
    beside: list[str] = []
    qkv: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        block = _BLOCK.fullmatch(key)
        part = block and re.fullmatch(_ATTENTION, block[2])
        if block and part:
            flat = value.flatten(1).T if part[2] == 'kernel' else value.flatten()
            kind = 'weight' if part[2] == 'kernel' else 'bias'
            qkv.setdefault(f'blocks.{block[1]}.attn.qkv.{kind}', {})[part[1]] = flat
        elif key in _WHOLE:
            renamed[_WHOLE[key]] = value
        else:
            name = _name(key, block)
            if name is None:
                beside.append(key)
            else:
                renamed[name] = _turned(value, name)
    for name, parts in qkv.items():
        if len(parts) < 3:
            raise MilanError(f'{source} does not hold a whole encoder: of {name} it has only '
                             f'{", ".join(parts)}')
        renamed[name] = torch.cat([parts[part] for part in ('query', 'key', 'value')])
    return renamed, beside


def describe_jax(state: dict[str, Any]) -> dict | None:
    """What the shapes tell, as checkpoints of this package describe theirs; heads are among it."""
    def find(pattern: str) -> Tensor | None:
        return next((v for k, v in state.items() if re.search(pattern, k)), None)

    query, hidden, patch_map, positions = map(find, (
        r'encoderblock_0/\w+/query/kernel$', r'encoderblock_0/\w+/Dense_0/kernel$',
        r'embedding/kernel$', r'pos_embedding$'))
    if query is None or hidden is None or patch_map is None or positions is None:
        return None  # the reader says what is missing
    blocks = {m[1] for k in state if (m := re.search(r'encoderblock_(\d+)/', k))}
    side = math.isqrt(positions.shape[1]) * patch_map.shape[0]
    arch = dict(embed_dims=query.shape[0], num_layers=len(blocks), num_heads=query.shape[1],
                feedforward_channels=hidden.shape[1])
    half = [127.5] * patch_map.shape[2]
    return dict(encoder=dict(arch=arch, img_size=[side, side], patch_size=patch_map.shape[0]),
                pixel_mean=half, pixel_std=half)


def _name(key: str, block: re.Match | None) -> str | None:
    rest, _, kind = (block[2] if block else key).rpartition('/')
    kind = {'scale': 'weight', 'kernel': 'weight', 'bias': 'bias'}.get(kind, '')
    found = _OUTER.get(rest) if block is None else next(
        (name for pattern, name in _INNER if re.fullmatch(pattern, rest)), None)
    return f'{"" if block is None else f"blocks.{block[1]}."}{found}.{kind}' if (
        found and kind) else None


def _turned(value: Tensor, name: str) -> Tensor:
    """Output channels first."""
    if name.endswith('attn.proj.weight'):
        return value.flatten(0, 1).T
    return value.permute(3, 2, 0, 1) if value.ndim == 4 else value.T if value.ndim == 2 else value
