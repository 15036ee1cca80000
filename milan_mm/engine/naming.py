# SPDX-License-Identifier: Apache-2.0
"""Two namings of the same weights: OpenMMLab's, used here, and the published checkpoints'.

The published checkpoints of MAE and MILAN name an encoder as timm does (``blocks.0.norm1``) and
lay encoder and decoder side by side; OpenMMLab has ``backbone.layers.0.ln1`` and ``neck.``.
"""
import re
from typing import Dict, List, Tuple

from torch import Tensor

# (published, OpenMMLab), for one block and for what is around the blocks
_BLOCK = [
    ('norm1', 'ln1'),
    ('norm2', 'ln2'),
    ('attn.qkv', 'attn.qkv'),
    ('attn.proj', 'attn.proj'),
    ('mlp.fc1', 'ffn.layers.0.0'),
    ('mlp.fc2', 'ffn.layers.1'),
]
_ENCODER = [('patch_embed.proj', 'patch_embed.projection'), ('norm', 'ln1')]
_NECK = re.compile(r'decoder_|mask_token')


def to_published(state: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """Renames ``backbone.*`` and ``neck.*``; anything else is left out."""
    renamed = {}
    for key, value in state.items():
        part, _, name = key.partition('.')
        if part == 'backbone':
            renamed[_rename(name, 'layers', 'blocks', _swap(_BLOCK), _swap(_ENCODER))] = value
        elif part == 'neck':
            # MAE's decoder, which is mmpretrain's, names its blocks as an encoder's; the
            # prompting decoder has the published names already.
            name = {'ln1.weight': 'decoder_norm.weight', 'ln1.bias': 'decoder_norm.bias'}.get(
                name, name)
            renamed[_rename(name, 'decoder_blocks', 'decoder_blocks', _swap(_BLOCK), [])] = value
    return renamed


def to_openmmlab(state: Dict[str, Tensor], mae_decoder: bool = False) -> Dict[str, Tensor]:
    """The inverse of :func:`to_published`.

    Args:
        state: in the published naming.
        mae_decoder: whether the decoder is MAE's; else the prompting decoder.
    """
    renamed = {}
    for key, value in state.items():
        if not _NECK.match(key):
            renamed['backbone.' + _rename(key, 'blocks', 'layers', _BLOCK, _ENCODER)] = value
        elif not mae_decoder:
            renamed['neck.' + key] = value
        else:
            key = key.replace('decoder_norm.', 'ln1.')
            renamed['neck.' + _rename(key, 'decoder_blocks', 'decoder_blocks', _BLOCK, [])] = value
    return renamed


def _swap(pairs: List[Tuple[str, str]]) -> List[Tuple[str, str]]:
    return [(b, a) for a, b in pairs]


def _rename(key: str, blocks: str, new_blocks: str, block_pairs: List[Tuple[str, str]],
            outer_pairs: List[Tuple[str, str]]) -> str:
    match = re.match(rf'{blocks}\.(\d+)\.(.+)\.(weight|bias)$', key)
    if match:
        index, inner, kind = match.groups()
        return f'{new_blocks}.{index}.{dict(block_pairs).get(inner, inner)}.{kind}'
    for old, new in outer_pairs:
        if re.match(rf'{re.escape(old)}\.(weight|bias)$', key):
            return new + key[len(old):]
    return key
