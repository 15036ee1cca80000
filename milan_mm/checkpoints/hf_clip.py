# SPDX-License-Identifier: Apache-2.0
"""Hugging Face's naming of CLIP's image tower, turned into OpenAI's."""
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import MilanError
from .io import read_checkpoint

_RENAMES = {
    'embeddings.class_embedding': 'class_embedding',
    'embeddings.patch_embedding.weight': 'conv1.weight',
    'embeddings.position_embedding.weight': 'positional_embedding',
    'pre_layrnorm': 'ln_pre',  # Hugging Face's own spelling
    'post_layernorm': 'ln_post',
    'encoder.layers': 'transformer.resblocks',
    'self_attn.out_proj': 'attn.out_proj',
    'layer_norm1': 'ln_1',
    'layer_norm2': 'ln_2',
    'mlp.fc1': 'mlp.c_fc',
    'mlp.fc2': 'mlp.c_proj',
}
_NEEDED = ('embeddings.class_embedding', 'embeddings.patch_embedding.weight',
           'embeddings.position_embedding.weight',
           *(f'{norm}.{kind}' for norm in ('pre_layrnorm', 'post_layernorm')
             for kind in ('weight', 'bias')))
_OF_A_BLOCK = tuple(f'{part}.{kind}' for part in (
    'layer_norm1', *(f'self_attn.{one}_proj' for one in ('q', 'k', 'v', 'out')), 'layer_norm2',
    'mlp.fc1', 'mlp.fc2') for kind in ('weight', 'bias'))
_WEIGHTS = ('model.safetensors', 'pytorch_model.bin')


class HFClip(NamedTuple):
    """A tower as a Hugging Face folder tells it; mean and std, in 0..1, if it tells them."""
    state: dict[str, Tensor]
    quickgelu: bool
    num_heads: int
    image_size: tuple[int, int]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def is_hf_clip_folder(folder: Path) -> bool:
    """Whether it looks like a model of transformers, and not like one of open_clip."""
    return (folder / 'config.json').is_file() and not (folder / 'open_clip_config.json').is_file()


def read_hf_clip_folder(folder: Path) -> HFClip:
    """Reads ``config.json`` and the weights beside it.

    Raises:
        MilanError: if it is not a CLIP model with a projection, or its activation is unknown.
    """
    config = json.loads((folder / 'config.json').read_text())
    vision = config.get('vision_config', config)
    if config.get('model_type') not in ('clip', 'clip_vision_model'):
        raise MilanError(f'{folder}/config.json describes a {config.get("model_type")!r} model; '
                         "expected 'clip' or 'clip_vision_model'")
    activation = vision.get('hidden_act', 'quick_gelu')
    if activation not in ('quick_gelu', 'gelu'):
        raise MilanError(f'{folder}/config.json says hidden_act={activation!r}; a CLIP tower uses '
                         "'quick_gelu' or 'gelu'")
    weights = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if not weights:
        raise MilanError(f'{folder} holds config.json but no {" or ".join(_WEIGHTS)}; a folder '
                         'of several shards must be saved as one file first')
    size = vision.get('image_size', 224)
    state = rename_hf_clip(read_checkpoint(weights[0]), str(weights[0]), projection=True)
    return HFClip(
        state, activation == 'quick_gelu',
        vision.get('num_attention_heads', 12), (size, size), *_pixels(folder))


def _pixels(folder: Path) -> Iterator[tuple[float, ...] | None]:
    path = folder / 'preprocessor_config.json'
    try:
        told = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
        for name in ('image_mean', 'image_std'):
            yield tuple(float(v) for v in told[name]) if told.get(name) else None
    except (AttributeError, TypeError, ValueError) as error:
        raise MilanError(f'{path} does not tell how pixels are normalised '
                         f'({type(error).__name__}: {error})') from error


def rename_hf_clip(state: dict[str, Tensor], name: str,
                   projection: bool = False) -> dict[str, Tensor]:
    """The image tower's tensors in OpenAI's names.

    Args:
        state: in Hugging Face's names.
        name: what to call the source in an error.
        projection: whether the projection into CLIP's space must be there.

    Raises:
        MilanError: if the projection or another tensor is missing, named as in the file.
    """
    _refuse_missing(state, name)
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if not key.startswith('vision_model.') or key.endswith('position_ids'):
            continue
        key = key.removeprefix('vision_model.')
        for theirs, ours in _RENAMES.items():
            key = key.replace(theirs, ours)
        renamed[key] = value
    if projection and 'visual_projection.weight' not in state:
        raise MilanError(f'{name} has no visual_projection.weight: MILAN\'s target is the '
                         'projected feature. Save CLIPModel or CLIPVisionModelWithProjection')
    if projection:
        renamed['proj'] = state['visual_projection.weight'].T.contiguous()
    for key in [k for k in renamed if '.self_attn.q_proj.' in k]:
        block, kind = key.split('.self_attn.q_proj.')
        parts = [renamed.pop(f'{block}.self_attn.{p}_proj.{kind}') for p in 'qkv']
        renamed[f'{block}.attn.in_proj_{kind}'] = torch.cat(parts)
    return renamed


def _refuse_missing(state: dict[str, Tensor], name: str) -> None:
    blocks = {int(found[1]) for key in state
              if (found := re.match(r'vision_model\.encoder\.layers\.(\d{1,4})\.', key))}
    needed = [*_NEEDED, *(f'encoder.layers.{i}.{part}' for i in range(max(blocks, default=0) + 1)
                          for part in _OF_A_BLOCK)]
    missing = [f'vision_model.{key}' for key in needed if f'vision_model.{key}' not in state]
    if missing:
        raise MilanError(f'{name} does not hold a whole image tower: missing {len(missing)} '
                         f'({missing[0]}). Was the file put together by hand, or cut?')
