# SPDX-License-Identifier: Apache-2.0
"""Each library's names of a ViT's tensors turned into this package's: what only a reader can do."""
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import MilanError
from . import naming
from .jax import jax_vit
from .naming import to_ours, why_foreign

#: An encoder, a decoder, both in this package's names, and the names of what is beside them.
Parts = tuple[dict[str, Tensor], dict[str, Tensor], list[str]]


def _encoder_of(state: dict[str, Tensor], names: naming.Naming, source: str) -> naming.Renamed:
    state = _whole_biases(state)
    found = to_ours(state, names)
    for key in found.unknown:
        why = why_foreign(key, names)
        if why:
            raise MilanError(f'{source} cannot be taken over: {why} ({key})')
    found.ours.update({key: state[key] for key in found.unknown})  # check_encoder names them
    return found


def _read_openmmlab(state: dict[str, Tensor], source: str) -> Parts:
    if not any(key.startswith('backbone.') for key in state):
        return _encoder_of(state, naming.MMPRETRAIN, source).ours, {}, []
    parts: dict[str, dict[str, Tensor]] = {'backbone.': {}, 'neck.': {}}
    beside = []
    for key, value in state.items():
        prefix = next((p for p in parts if key.startswith(p)), None)
        if prefix:
            parts[prefix][key.removeprefix(prefix)] = value
        else:
            beside.append(key)
    decoder = parts['neck.']
    if not _is_decoder(decoder):
        beside += [f'neck.{key}' for key in decoder]
        decoder = {}
    return _encoder_of(parts['backbone.'], naming.MMPRETRAIN, source).ours, decoder, beside


def _is_decoder(neck: dict[str, Tensor]) -> bool:
    """Whether a neck is one of this package's decoders: prompting, or MAE's."""
    return any(k.startswith('decoder_blocks.0.attn.kv.') for k in neck) or any(
        k.startswith('decoder_blocks.0.attn.qkv.') for k in neck)


def _read_published(state: dict[str, Tensor], source: str) -> Parts:
    found = _encoder_of(state, naming.TIMM, source)
    beside = {key: state[key] for key in found.beside}
    decoder = {k: v for k, v in beside.items() if k.startswith('decoder_') or k == 'mask_token'}
    if 'decoder_embed.weight' not in decoder:
        return found.ours, {}, list(beside)
    left = [key for key in beside if key not in decoder]
    neck = naming.to_openmmlab(decoder)
    return found.ours, {k.removeprefix('neck.'): v for k, v in neck.items()}, left


def _whole_biases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Biases of queries and values alone (BEiT, DINOv3) as those of all three, the keys' zero."""
    whole = dict(state)
    for key in [k for k in state if k.endswith('attn.q_bias')]:
        block = key.removesuffix('q_bias')
        query, value = whole.pop(key), whole.pop(f'{block}v_bias', None)
        if value is not None:
            keys = whole.pop(f'{block}k_bias', torch.zeros_like(query))
            whole[f'{block}qkv.bias'] = torch.cat([query, keys, value])
    for key in [k for k in state if k.endswith('attn.qkv.bias_mask')]:  # DINOv3's authors
        bias = key.removesuffix('_mask')
        mask = whole.pop(key)
        whole[bias] = torch.where(mask.nan_to_num() == 0, torch.zeros_like(mask), whole[bias])
    return whole


def _together(state: dict[str, Tensor], parts: tuple[str, ...], whole: str, source: str) -> None:
    """Puts queries, keys and values of each block into one tensor, in place.

    Args:
        parts: what a block calls the three, such as '.attention.query'.
        whole: what it is called then.
        source: the file.

    Raises:
        MilanError: if one of the three is missing; but for a bias, which is zero then.
    """
    for key in [k for k in state if f'{parts[0]}.' in k]:
        head, kind = key.split(f'{parts[0]}.')
        names = [f'{head}{part}.{kind}' for part in parts]
        absent = [name for name in names if name not in state]
        if absent and kind != 'bias':
            raise MilanError(f'{source} does not hold a whole encoder: missing {absent[0]}')
        zero = torch.zeros_like(state[key])
        state[f'{head}{whole}.{kind}'] = torch.cat([state.pop(name, zero) for name in names])


def _read_hf(state: dict[str, Tensor], source: str) -> Parts:
    state = dict(state)
    _together(state, ('.attention.query', '.attention.key', '.attention.value'), '.qkv', source)
    dinov2 = any('.layer_scale1.' in k for k in state)
    found = _encoder_of(state, naming.HF_DINOV2 if dinov2 else naming.HF, source)
    return found.ours, {}, found.beside


def _read_dinov3(state: dict[str, Tensor], source: str) -> Parts:
    state = dict(state)
    _together(state, ('.q_proj', '.k_proj', '.v_proj'), '.qkv', source)
    found = _encoder_of(state, naming.HF_DINOV3, source)
    return found.ours, {}, found.beside


def _read_torchvision(state: dict[str, Tensor], source: str) -> Parts:
    state = {k.replace('.encoder_layer_', '.'): v for k, v in state.items()}
    found = _encoder_of(state, naming.TORCHVISION, source)
    return found.ours, {}, found.beside


def _read_jax(state: dict[str, Tensor], source: str) -> Parts:
    renamed, beside = jax_vit(state, source)
    found = _encoder_of(renamed, naming.TIMM, source)
    return found.ours, {}, beside + found.beside


def _read_clip(state: dict[str, Tensor], source: str) -> Parts:
    if any(key.startswith('vision_model.') for key in state):
        from .hf_clip import rename_hf_clip
        visual = rename_hf_clip(state, source)
        beside = [key for key in state if not key.startswith('vision_model.')]
    else:
        towers = any(key.startswith('visual.') for key in state)
        visual = {k.removeprefix('visual.'): v for k, v in state.items()
                  if k.startswith('visual.') or not towers}
        beside = [key for key in state if towers and not key.startswith('visual.')]
    for key, rows in (('class_embedding', (1, 1)), ('positional_embedding', (1, ))):
        if key in visual:
            visual[key] = visual[key].reshape(*rows, *visual[key].shape)
    found = _encoder_of(visual, naming.CLIP, source)
    return found.ours, {}, beside + found.beside


READERS: dict[str, Callable[[dict[str, Tensor], str], Parts]] = dict(
    milan_mm=_read_openmmlab, mmpretrain=_read_openmmlab, authors=_read_published,
    timm=_read_published, hf=_read_hf, dinov3=_read_dinov3, clip=_read_clip,
    torchvision=_read_torchvision, jax=_read_jax)
