# SPDX-License-Identifier: Apache-2.0
"""From a file of weights, whoever wrote it, to a ViT whose every tensor is accounted for."""
import functools
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import MilanError
from ..positions import rotary_periods
from ..wording import some_of
from .containers import unwrap
from .folders import read_folder_or_file
from .jax import describe_jax
from .naming import in_file
from .readers import READERS
from .spec import EncoderSpec, read_spec, registers_of
from .strict import mismatch
from .zoo import located

FORMATS = ('milan_mm', 'mmpretrain', 'authors', 'timm', 'hf', 'dinov3', 'clip', 'torchvision',
           'jax')
Path_ = str | Path
_NEEDED = ('pos_embed', 'patch_embed.projection.weight')
_BLOCK = tuple(f'{module}.{kind}' for module in ('ln1', 'attn.qkv', 'attn.proj', 'ln2',
                                                  'ffn.layers.0.0', 'ffn.layers.1')
               for kind in ('weight', 'bias'))
_SCALES = ('attn.gamma1.weight', 'ffn.gamma2.weight')


class ViTWeights(NamedTuple):
    """A ViT out of a file.

    Attributes:
        source: the file or folder.
        format: one of :data:`FORMATS`.
        encoder: in mmpretrain's names without prefix, in the file's own precision.
        decoder: in this package's names without ``neck.``; empty if the file has none.
        beside: names of what else the file holds (a head, a teacher, a text tower).
        spec: sizes, heads, pixel statistics.
        described: what a checkpoint of this package says of itself, or None.
        unwrapped: in words, what the encoder was taken out of, and which weights were taken.
    """
    source: str
    format: str
    encoder: dict[str, Tensor]
    decoder: dict[str, Tensor]
    beside: list[str]
    spec: EncoderSpec
    described: dict[str, Any] | None
    unwrapped: str = ''

    def in_file(self, key: str) -> str:
        """What the file calls an encoder's tensor, for messages."""
        return in_file(key, self.format, _has_scales(self.encoder))


def read_vit(path: Path_, trust: bool = False, format: str | None = None,
             content: dict[str, Any] | None = None, weights: str | None = None) -> ViTWeights:
    """Reads a ViT; nothing in the file is executed.

    Args:
        path: a training checkpoint or export of this package or of OpenMMLab, a file as the authors
            of MAE, MILAN, DINO, DINOv2 and DINOv3 publish them, of timm, of CLIP, of torchvision,
            or JAX's ``.npz``; within whatever :func:`unwrap` takes off; or a folder of Hugging Face
            or open_clip; or a name of :func:`list_models`.
        trust: see :func:`read_checkpoint`.
        format: one of :data:`FORMATS`; None finds out.
        content: what :func:`read_checkpoint` gave for the path, if it was read already.
        weights: 'ema' or 'raw', of a file that holds both; None takes the averaged ones.

    Raises:
        MilanError: if it holds no such ViT, or a tensor of one is missing, left over, or has a
            shape that contradicts the others'. The first of them is named.
    """
    path = Path(path).expanduser() if content else located(path)
    checkpoint, by_folder = ((content, describe_jax(content) if path.suffix == '.npz' else None)
                             if content else read_folder_or_file(path, trust))
    state, outside, unwrapped = unwrap(checkpoint, str(path), weights)
    format = format or recognise(state, str(path))
    if format not in FORMATS:
        raise MilanError(f'unknown format {format!r}; known are {list(FORMATS)}')
    encoder, decoder, beside = READERS[format](state, str(path))
    if 'pos_embed' not in encoder:
        _place_by_rotation(encoder, format, by_folder)
    elif 'cls_token' in encoder and format in ('timm', 'authors'):
        _give_cls_a_place(encoder)
    check_encoder(encoder, str(path), format)
    spec, described = read_spec(path, checkpoint, encoder, by_folder)
    return ViTWeights(str(path), format, encoder, decoder, sorted(beside + outside), spec,
                      described, unwrapped)


def recognise(state: dict[str, Tensor], source: str) -> str:
    """Whose names a state dict has.

    Raises:
        MilanError: if they are nobody's.
    """

    def has(pattern: str) -> bool:
        return any(re.match(pattern, key) for key in state)

    for format, pattern in (
            ('mmpretrain', r'backbone\.|layers\.\d+\.ln1\.'),
            ('authors', r'decoder_blocks\.|decoder_embed\.'),
            ('timm', r'blocks\.\d+\.norm1\.'),
            ('clip', r'(visual\.)?(conv1\.|transformer\.resblocks\.)|vision_model\.'),
            ('torchvision', r'conv_proj\.|encoder\.layers\.encoder_layer_'),
            ('jax', r'Transformer/|embedding/kernel'),
            ('dinov3', r'layer\.\d+\.attention\.'),
            ('hf', r'(\w+\.)?embeddings\.cls_token|(\w+\.)?encoder\.layer\.')):
        if has(pattern):
            own = format == 'mmpretrain' and has(r'neck\.decoder_blocks\.0\.attn\.kv\.')
            return 'milan_mm' if own else format
    raise MilanError(
        f'{source} holds no encoder of a known kind (has '
        f'{some_of(list(state), 3) or "no tensors"}). Expected a plain ViT: of this package or '
        'OpenMMLab, of MAE, MILAN, DINO or DINOv2 and 3 as published, of timm, torchvision, CLIP '
        'or JAX, or a Hugging Face folder. As a teacher, any ViT of timm serves: '
        'milan_mm.TimmTargetGenerator')


def check_encoder(encoder: dict[str, Tensor], source: str, format: str) -> None:
    """Compares an encoder with the ViT that its own widths and depth promise.

    Args:
        encoder: in this package's names.
        source: what messages call the file.
        format: whose names the file has, for messages.

    Raises:
        MilanError: naming the first tensor that is missing, misshapen, or no finite floats.
    """
    called = functools.partial(in_file, format=format, layer_scale=_has_scales(encoder))
    for key in (*_NEEDED, 'layers.0.ffn.layers.0.0.weight'):
        if key not in encoder:
            raise MilanError(f'{source} does not hold a whole encoder: missing {called(key)}')
    problem = mismatch(_expected(encoder), encoder, called)
    if problem:
        raise MilanError(f'{source} does not hold a whole encoder: {problem}. Was the file put '
                         'together by hand, or cut?')


def _has_scales(encoder: dict[str, Tensor]) -> bool:
    return any(key.endswith(_SCALES) for key in encoder)


def _expected(encoder: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a ViT with this one's width, depth and extras."""
    patch_map = encoder['patch_embed.projection.weight']
    width, hidden = len(patch_map), len(encoder['layers.0.ffn.layers.0.0.weight'])
    shapes = {'ln1': (width, ), 'ln2': (width, ), 'attn.qkv': (3 * width, width),
              'attn.proj': (width, width), 'ffn.layers.0.0': (hidden, width),
              'ffn.layers.1': (width, hidden)}
    # With some extras and without others: tokens of its own, rotary positions, biases of queries,
    # keys and values.
    extras: dict[str, tuple[int, ...]] = {
        'cls_token': (1, 1, width), 'register_tokens': (1, registers_of(encoder), width),
        'rotary.periods': (encoder.get('rotary.periods', patch_map).numel(), )}
    expected = {**{key: shape for key, shape in extras.items() if key in encoder},
                'patch_embed.projection.weight': tuple(patch_map.shape),
                'pos_embed': (1, encoder['pos_embed'].shape[1], width)}
    with_biases = any(key.endswith('attn.qkv.bias') for key in encoder)
    # A norm before the blocks comes in place of the patch map's bias (CLIP); a norm after the
    # pooling in place of the final one (finetuned by mean pooling).
    outer = ['pre_norm.weight', 'pre_norm.bias'] if any(
        k.startswith('pre_norm') for k in encoder) else ['patch_embed.projection.bias']
    finals = {k.split('.')[0] for k in encoder if k.startswith(('ln1.', 'ln2.'))} or {'ln1'}
    outer += [f'{norm}.{kind}' for norm in sorted(finals) for kind in ('weight', 'bias')]
    expected.update({key: (width, ) for key in outer})
    scales = _SCALES if _has_scales(encoder) else ()
    depth = 1 + max(int(n) for n in (k.split('.')[1] for k in encoder if k.startswith('layers.'))
                    if n.isdigit())
    for i in range(depth):
        for name in _BLOCK if with_biases else [n for n in _BLOCK if n != 'attn.qkv.bias']:
            module, _, kind = name.rpartition('.')
            expected[f'layers.{i}.{name}'] = shapes[module][:2 if kind == 'weight' else 1]
        expected.update({f'layers.{i}.{name}': (width, ) for name in scales})
    return expected


def _place_by_rotation(encoder: dict[str, Tensor], format: str, by_folder: dict | None) -> None:
    """Gives a ViT without positions of its own (DINOv3), in place, zeros and rotary periods."""
    patch_map = encoder.get('patch_embed.projection.weight')
    if patch_map is None or patch_map.ndim != 4 or format not in ('timm', 'authors', 'dinov3'):
        return
    width, _, patch, _ = patch_map.shape
    told = (by_folder or {}).get('encoder', {})
    heads = told.get('arch', {}).get('num_heads') or max(width // 64, 1)
    rows, columns = (side // patch for side in told.get('img_size', (224, 224)))
    count = rows * columns + ('cls_token' in encoder)
    encoder['pos_embed'] = patch_map.new_zeros(1, count, width)
    if 'rotary.periods' not in encoder:
        encoder['rotary.periods'] = rotary_periods(width // heads, told.get('rope_theta', 100.))


def _give_cls_a_place(encoder: dict[str, Tensor]) -> None:
    """Gives positions of patches alone (timm's ``no_embed_class``), in place, a zero for CLS.

    A square number of them is for patches; with sine-cosine ones, CLS's is zero already.
    """
    positions = encoder['pos_embed']
    if (positions.ndim == 3 and math.isqrt(positions.shape[1])**2 == positions.shape[1]
            and positions[:, :1].any()):
        encoder['pos_embed'] = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
