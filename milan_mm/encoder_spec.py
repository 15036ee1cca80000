# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint to an encoder's weights and sizes; nothing in the file is executed."""
import json
import logging
import math
import re
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from mmengine.logging import print_log
from safetensors import safe_open
from torch import Tensor

from .checkpoint_io import read_checkpoint, state_of
from .engine.naming import to_openmmlab
from .errors import MilanError
from .models.encoder import ARCHITECTURES
from .models.positions import sincos_positions

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class EncoderSpec(NamedTuple):
    """What must be known of an encoder to build it and to feed it.

    Attributes:
        arch: ``embed_dims``, ``num_layers``, ``num_heads``, ``feedforward_channels``.
        img_size: height and width in pixels its positions are for.
        patch_size: side of a patch in pixels.
        pixel_mean, pixel_std: per channel (RGB), in 0..255.
    """
    arch: Dict[str, int]
    img_size: Tuple[int, int]
    patch_size: int
    pixel_mean: Sequence[float] = IMAGENET_MEAN
    pixel_std: Sequence[float] = IMAGENET_STD


def read_encoder(path: Union[str, Path],
                 trust: bool = False) -> Tuple[Dict[str, Tensor], EncoderSpec]:
    """Reads the encoder out of a checkpoint.

    Widths, depth and patch size are read off the weights' shapes. Heads, picture size and
    pixel statistics stand in the checkpoints of this package under ``meta.milan_mm``; for other
    files they are inferred, and the log says so.

    Args:
        path: of a training checkpoint, an export, or a file in mmpretrain's or MAE's naming.
        trust: see :func:`read_checkpoint`.

    Returns:
        The encoder's state dict in mmpretrain's names without prefix, and its sizes.

    Raises:
        MilanError: if the file holds no ViT, or its description contradicts its weights.
    """
    path = Path(path).expanduser()
    checkpoint = read_checkpoint(path, trust)
    state = _encoder_state(state_of(checkpoint), str(path))
    meta = _meta_of(checkpoint, path)
    return state, (_inferred_spec(state, str(path)) if meta is None else
                   _described_spec(state, meta, str(path)))


def _encoder_state(state: Dict[str, Tensor], source: str) -> Dict[str, Tensor]:
    if not any(key.startswith('backbone.') for key in state):
        if any(key.startswith('blocks.') for key in state):
            heads = [key for key in state if key.startswith('head.')]
            if heads:
                print_log(f'{source}: the classifier ({", ".join(heads)}) is left out',
                          logger='current')
            state = to_openmmlab({k: v for k, v in state.items() if k not in heads})
        else:
            state = {f'backbone.{key}': value for key, value in state.items()}
    encoder = {key.removeprefix('backbone.'): value.float() for key, value in state.items()
               if key.startswith('backbone.')}
    for key in ('patch_embed.projection.weight', 'pos_embed', 'layers.0.ffn.layers.0.0.weight'):
        if key not in encoder:
            raise MilanError(
                f'{source} holds no encoder of this kind: it lacks backbone.{key} (has '
                f'{", ".join(list(state)[:3]) or "no tensors"}, …). Expected a checkpoint of '
                "this package, of mmpretrain's VisionTransformer, or of MAE or MILAN as published")
    return encoder


def _meta_of(checkpoint: Dict[str, Any], path: Path) -> Optional[dict]:
    if path.suffix == '.safetensors':
        with safe_open(str(path), 'pt') as file:
            text = (file.metadata() or {}).get('milan_mm')
        try:
            meta = None if text is None else json.loads(text)
        except ValueError as error:
            raise MilanError(f'{path}: the metadata milan_mm is no JSON ({error})') from error
    else:
        meta = checkpoint.get('meta')
        meta = meta.get('milan_mm') if isinstance(meta, dict) else None
    if meta is not None and not (isinstance(meta, dict) and isinstance(meta.get('encoder'), dict)):
        raise MilanError(f'{path}: the description milan_mm has no encoder; was it edited?')
    return meta


def _shapes(state: Dict[str, Tensor]) -> Tuple[Dict[str, int], int, int]:
    """Architecture without heads, patch size, and number of patches, off the shapes."""
    width, _, patch, _ = state['patch_embed.projection.weight'].shape
    depth = len({m.group(1) for m in (re.match(r'layers\.(\d+)\.', k) for k in state) if m})
    arch = dict(embed_dims=width, num_layers=depth,
                feedforward_channels=state['layers.0.ffn.layers.0.0.weight'].shape[0])
    return arch, patch, state['pos_embed'].shape[1] - 1


def _described_spec(state: Dict[str, Tensor], meta: dict, source: str) -> EncoderSpec:
    encoder = meta['encoder']
    try:
        spec = EncoderSpec(
            {name: int(encoder['arch'][name]) for name in
             ('embed_dims', 'num_layers', 'num_heads', 'feedforward_channels')},
            tuple(int(side) for side in encoder['img_size']), int(encoder['patch_size']),
            tuple(float(v) for v in meta['pixel_mean']), tuple(float(v) for v in meta['pixel_std']))
        sound = (len(spec.img_size) == 2 and len(spec.pixel_mean) == len(spec.pixel_std) == 3
                 and min(spec.pixel_std) > 0 and min(spec.arch.values()) > 0)
    except (KeyError, TypeError, ValueError) as error:
        raise MilanError(f'{source}: its description is not understood ({type(error).__name__}: '
                         f'{error}); was it written by another version?') from error
    arch, patch, patches = _shapes(state)
    grid = tuple(side // patch for side in spec.img_size)
    described = {k: v for k, v in spec.arch.items() if k != 'num_heads'}
    if (not sound or described != arch or spec.patch_size != patch or math.prod(grid) != patches
            or arch['embed_dims'] % spec.arch['num_heads']):
        raise MilanError(f'{source}: its description ({encoder}) contradicts its weights ({arch}, '
                         f'patch {patch}, {patches} positions). Was the file put together by hand?')
    return spec


def _inferred_spec(state: Dict[str, Tensor], source: str) -> EncoderSpec:
    arch, patch, patches = _shapes(state)
    width = arch['embed_dims']
    # Heads cannot be read off shapes. ViT-H's are 80 wide, those of the other sizes 64.
    known = [a['num_heads'] for a in ARCHITECTURES.values()
             if (a['embed_dims'], a['num_layers']) == (width, arch['num_layers'])]
    arch['num_heads'] = known[0] if known else max(width // 64, 1)
    if width % arch['num_heads']:
        raise MilanError(f'{source} does not say how many heads its encoder has, and a width of '
                         f'{width} is no multiple of 64')
    grid = _grid_of(state['pos_embed'], source)
    spec = EncoderSpec(arch, (grid[0] * patch, grid[1] * patch), patch)
    print_log(
        f'{source} does not describe its encoder. Inferred from the weights: {arch}, patch '
        f'{patch}, picture {spec.img_size}. Assumed: '
        f'{arch["num_heads"]} heads, ImageNet\'s pixel mean and standard deviation',
        logger='current', level=logging.WARNING)
    return spec


def _grid_of(positions: Tensor, source: str) -> Tuple[int, int]:
    """Rows and columns: fixed sine-cosine positions tell, others are taken for a square."""
    patches, width = positions.shape[1] - 1, positions.shape[2]
    side = math.isqrt(max(patches, 0))
    square = [(side, side)] if side and side * side == patches else []
    others = [(r, patches // r) for r in range(1, patches + 1) if patches % r == 0]
    if width % 4 == 0:
        for grid in square + others:
            if torch.allclose(positions[0], sincos_positions(width, grid)[0], atol=2e-3):
                return grid
    if square:
        return square[0]
    raise MilanError(f'{source} has {patches} positions, which form no square, and they are not '
                     'sine-cosine ones, so the shape of its pictures is unknown')
