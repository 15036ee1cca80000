# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face folder of DINOv2, with registers or gated MLPs, as a ViT of timm."""
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from timm.layers import Mlp, SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ..errors import MilanError
from ..wording import some_of
from .io import read_checkpoint, state_of
from .spec import describe_by_folder

# Into the names DINOv2's authors publish, which timm converts.
_RENAMES = (
    (r'^embeddings\.register_tokens', 'register_tokens'),
    (r'^embeddings\.cls_token', 'cls_token'),
    (r'^embeddings\.position_embeddings', 'pos_embed'),
    (r'^embeddings\.patch_embeddings\.projection', 'patch_embed.proj'),
    (r'^embeddings\.mask_token', 'mask_token'),
    (r'^encoder\.layer\.', 'blocks.'),
    (r'\.attention\.output\.dense\.', '.attn.proj.'),
    (r'\.attention\.attention\.', '.attn.'),
    (r'\.layer_scale([12])\.lambda1', r'.ls\1.gamma'),
    (r'\.mlp\.weights_in\.', '.mlp.w12.'),
    (r'\.mlp\.weights_out\.', '.mlp.w3.'),
    (r'^layernorm\.', 'norm.'),
)


class HFDinov2(NamedTuple):
    """A ViT as a Hugging Face folder tells it.

    Attributes:
        vit: a model of timm, with random weights yet.
        state: its weights, in the names of DINOv2's authors.
        mean, std: its pixel statistics, in 0..1.
    """
    vit: VisionTransformer
    state: dict[str, Tensor]
    mean: Sequence[float]
    std: Sequence[float]


def is_hf_dinov2(config: dict) -> bool:
    """Whether a ``config.json`` is one of DINOv2's."""
    return config.get('model_type') in ('dinov2', 'dinov2_with_registers')


def has_no_place_here(config: dict) -> bool:
    """Whether it is one that this package's own ViT cannot be: registers, or gated MLPs."""
    return is_hf_dinov2(config) and (config['model_type'] == 'dinov2_with_registers'
                                     or bool(config.get('use_swiglu_ffn')))


def read_hf_dinov2(folder: Path, trust: bool = False) -> HFDinov2:
    """Reads ``config.json``, ``preprocessor_config.json`` and the weights beside them.

    Raises:
        MilanError: if they do not describe a ViT.
    """
    config, pixels = (
        json.loads((folder / name).read_text(encoding='utf-8')) if (folder / name).is_file() else {}
        for name in ('config.json', 'preprocessor_config.json'))
    described = describe_by_folder(config, pixels, str(folder))
    weights = next(folder / name for name in ('model.safetensors', 'pytorch_model.bin')
                   if (folder / name).is_file())
    state = rename_hf_dinov2(state_of(read_checkpoint(weights, trust)))
    encoder = described['encoder']
    arch, width = encoder['arch'], encoder['arch']['embed_dims']
    hidden = state.get('blocks.0.mlp.w12.weight', state.get('blocks.0.mlp.fc1.weight'))
    if hidden is None:
        raise MilanError(f'{weights} does not hold a DINOv2: it lacks the first block\'s MLP (has '
                         f'{some_of(list(state), 3) or "no tensors"})')
    gated = 'blocks.0.mlp.w12.weight' in state
    registers = state['register_tokens'].shape[1] if 'register_tokens' in state else 0
    vit = VisionTransformer(
        img_size=tuple(encoder['img_size']), patch_size=encoder['patch_size'], embed_dim=width,
        depth=arch['num_layers'], num_heads=arch['num_heads'],
        mlp_ratio=(len(hidden) + .5) / width,  # timm rounds the product down
        qkv_bias=config.get('qkv_bias', True), init_values=1.0, num_classes=0,
        reg_tokens=registers, no_embed_class=registers > 0,
        mlp_layer=SwiGLUPacked if gated else Mlp,  # type: ignore[arg-type]
        act_layer=nn.SiLU if gated else nn.GELU)
    mean, std = ([v / 255 for v in described[name]] for name in ('pixel_mean', 'pixel_std'))
    return HFDinov2(vit, state, mean, std)


def rename_hf_dinov2(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face's names turned into those of DINOv2's authors."""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        key = re.sub(r'^dinov2(_with_registers)?\.', '', key)
        for theirs, published in _RENAMES:
            key = re.sub(theirs, published, key)
        renamed[key] = value
    for key in [k for k in renamed if '.attn.query.' in k]:
        block, kind = key.split('.attn.query.')
        parts = [f'{block}.attn.{part}.{kind}' for part in ('query', 'key', 'value')]
        if all(part in renamed for part in parts):
            renamed[f'{block}.attn.qkv.{kind}'] = torch.cat([renamed.pop(part) for part in parts])
    return renamed
