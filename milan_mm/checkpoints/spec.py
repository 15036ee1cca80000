# SPDX-License-Identifier: Apache-2.0
"""What must be known of an encoder beside its weights: told by its file, or inferred."""
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.logging import print_log
from safetensors import safe_open
from torch import Tensor

from ..architectures import IMAGENET_CROP_RATIO, known_heads
from ..errors import MilanError
from ..positions import sincos_positions
from ..structures import pair
from .torchscript import is_torchscript

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # in 0..1
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_ARCH = ('embed_dims', 'num_layers', 'num_heads', 'feedforward_channels')


class EncoderSpec(NamedTuple):
    """What must be known of an encoder to build it and to feed it.

    Attributes:
        arch: ``embed_dims``, ``num_layers``, ``num_heads``, ``feedforward_channels``.
        img_size: height and width in pixels its positions are for.
        patch_size: side of a patch in pixels.
        pixel_mean, pixel_std: per channel (RGB), in 0..255.
        quick_gelu: whether its MLPs use CLIP's QuickGELU; None if the file does not say.
        norm_eps: what its norms add to the variance.
        crop_ratio: of the central crop it is evaluated with, see :class:`ResizeAndCenterCrop`.
    """
    arch: dict[str, int]
    img_size: tuple[int, int]
    patch_size: int
    pixel_mean: Sequence[float] = IMAGENET_MEAN
    pixel_std: Sequence[float] = IMAGENET_STD
    quick_gelu: bool | None = False
    norm_eps: float = 1e-6
    crop_ratio: float = IMAGENET_CROP_RATIO

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return pair(side // self.patch_size for side in self.img_size)


def encoder_options(encoder: dict[str, Tensor] | None, spec: EncoderSpec) -> dict[str, Any]:
    """The arguments of ``MaskedVisionTransformer`` that make a place for each of the tensors.

    Args:
        encoder: in this package's names; None for the plain ViT of these sizes.
        spec: its sizes.
    """
    options: dict[str, Any] = dict(arch=spec.arch, img_size=spec.img_size,
                                   patch_size=spec.patch_size)
    if encoder is None:
        return options
    for option, value, needed in (
            ('pre_norm', True, 'pre_norm.weight' in encoder),
            ('layer_scale_init_value', 1.0, 'layers.0.attn.gamma1.weight' in encoder),
            ('final_norm', False, 'ln1.weight' not in encoder),
            ('with_cls_token', False, 'cls_token' not in encoder),
            ('qkv_bias', False, 'layers.0.attn.qkv.bias' not in encoder),
            ('num_registers', registers_of(encoder), 'register_tokens' in encoder),
            ('rotary', True, 'rotary.periods' in encoder),
            ('in_channels', len(spec.pixel_mean), len(spec.pixel_mean) != 3),
            ('norm_cfg', dict(type='LN', eps=spec.norm_eps), spec.norm_eps != 1e-6),
            ('layer_cfgs', dict(act_cfg=dict(type='mmpretrain.QuickGELU')), spec.quick_gelu)):
        if needed:
            options[option] = value
    return options


def registers_of(encoder: dict[str, Tensor]) -> int:
    """Number of register tokens."""
    tokens = encoder.get('register_tokens')
    return tokens.shape[1] if tokens is not None and tokens.ndim == 3 else 0


def read_spec(path: Path, checkpoint: dict[str, Any], encoder: dict[str, Tensor],
              by_folder: dict | None) -> tuple[EncoderSpec, dict | None]:
    """Sizes of an encoder.

    Widths, depth and patch size are read off the weights' shapes. Heads, image size and
    pixel statistics stand in the checkpoints of this package under ``meta.milan_mm``; for other
    files they are inferred, and the log says so.

    Args:
        path: path of the file.
        checkpoint: its content.
        encoder: its encoder, in this package's names.
        by_folder: see :func:`describe_by_folder`.

    Returns:
        The sizes, and the description they were taken from, if the file has one.

    Raises:
        MilanError: if the description contradicts the weights.
    """
    described = _meta_of(checkpoint, path) or by_folder
    if described is not None:
        return _described_spec(encoder, described, str(path)), described
    return _inferred_spec(encoder, str(path), path), None


def describe_spec(spec: EncoderSpec) -> dict:
    """Plain values that :func:`read_spec` makes the same sizes of."""
    encoder = dict(arch=dict(spec.arch), img_size=list(spec.img_size), patch_size=spec.patch_size)
    if spec.quick_gelu is not False:
        encoder['quick_gelu'] = spec.quick_gelu  # None: the file it came from did not say
    if spec.norm_eps != 1e-6:
        encoder['norm_eps'] = spec.norm_eps
    usual = spec.crop_ratio == IMAGENET_CROP_RATIO
    return dict(encoder=encoder, pixel_mean=list(spec.pixel_mean), pixel_std=list(spec.pixel_std),
                **({} if usual else dict(crop_ratio=spec.crop_ratio)))


def describe_by_folder(config: dict, pixels: dict, source: str) -> dict:
    """What a Hugging Face folder says of its ViT, as this package's checkpoints describe theirs.

    Args:
        config: of ``config.json``.
        pixels: of ``preprocessor_config.json``; empty if there is none.
        source: the folder.
    """
    config = config.get('vision_config') or config
    side = config.get('image_size', 224)
    act = config.get('hidden_act', 'gelu')
    if act not in ('gelu', 'quick_gelu'):
        raise MilanError(f'{source}/config.json says hidden_act={act!r}; expected gelu or '
                         'quick_gelu')
    try:
        hidden = config.get('intermediate_size') or config['hidden_size'] * config['mlp_ratio']
        return dict(
            encoder=dict(
                arch=dict(zip(_ARCH, (config['hidden_size'], config['num_hidden_layers'],
                                      config['num_attention_heads'], hidden))),
                img_size=[side, side] if isinstance(side, int) else side,
                patch_size=config['patch_size'], quick_gelu=act == 'quick_gelu',
                norm_eps=config.get('layer_norm_eps', 1e-6),
                rope_theta=config.get('rope_theta', 100.)),
            pixel_mean=[255 * v for v in pixels['image_mean']] if pixels else IMAGENET_MEAN,
            pixel_std=[255 * v for v in pixels['image_std']] if pixels else IMAGENET_STD,
            crop_ratio=pixels.get('crop_ratio', IMAGENET_CROP_RATIO))
    except (KeyError, TypeError) as error:
        raise MilanError(f'{source}/config.json does not describe a ViT ({type(error).__name__}: '
                         f'{error})') from error


def describe_by_open_clip(config: dict, source: str) -> dict:
    """:func:`describe_by_folder` of the image tower in ``open_clip_config.json``.

    Raises:
        MilanError: if that is no plain ViT of open_clip.
    """
    try:
        model, pixels = config['model_cfg'], config.get('preprocess_cfg') or {}
        vision = model['vision_cfg']
        width, side = vision['width'], vision.get('image_size', 224)
        sizes = (width, vision['layers'], width // vision.get('head_width', 64),
                 int(width * vision.get('mlp_ratio', 4.)))
        mean, std = (pixels.get(name) or default for name, default in (
            ('mean', CLIP_MEAN), ('std', CLIP_STD)))
        return dict(
            encoder=dict(
                arch=dict(zip(_ARCH, sizes)),
                img_size=[side, side] if isinstance(side, int) else side,
                patch_size=vision['patch_size'], quick_gelu=bool(model.get('quick_gelu')),
                norm_eps=1e-5),
            pixel_mean=[255 * v for v in mean], pixel_std=[255 * v for v in std])
    except (AttributeError, KeyError, TypeError) as error:
        raise MilanError(f'{source}/open_clip_config.json does not describe a ViT of open_clip '
                         f'({type(error).__name__}: {error}). As a teacher: --teacher {source}'
                         ) from error


def _meta_of(checkpoint: dict[str, Any], path: Path) -> dict | None:
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


def _shapes(state: dict[str, Tensor]) -> tuple[dict[str, int], int, int]:
    """Architecture without heads, patch size, and number of patches, off the shapes."""
    width, _, patch, _ = state['patch_embed.projection.weight'].shape
    depth = len({k.split('.')[1] for k in state if k.startswith('layers.')})
    arch = dict(embed_dims=width, num_layers=depth,
                feedforward_channels=state['layers.0.ffn.layers.0.0.weight'].shape[0])
    return arch, patch, state['pos_embed'].shape[1] - ('cls_token' in state)


def _described_spec(state: dict[str, Tensor], meta: dict, source: str) -> EncoderSpec:
    encoder = meta['encoder']
    try:
        spec = EncoderSpec(
            {name: int(encoder['arch'][name]) for name in _ARCH},
            pair(int(side) for side in encoder['img_size']), int(encoder['patch_size']),
            tuple(float(v) for v in meta['pixel_mean']), tuple(float(v) for v in meta['pixel_std']),
            None if (quick := encoder.get('quick_gelu', False)) is None else bool(quick),
            float(encoder.get('norm_eps', 1e-6)),
            float(meta.get('crop_ratio', IMAGENET_CROP_RATIO)))
        channels = state['patch_embed.projection.weight'].shape[1]
        sound = (len(spec.img_size) == 2
                 and len(spec.pixel_mean) == len(spec.pixel_std) == channels
                 and min(spec.pixel_std) > 0 and 0 < spec.crop_ratio <= 1
                 and min(spec.arch.values()) > 0)
    except (KeyError, TypeError, ValueError) as error:
        raise MilanError(f'{source}: its description is not understood ({type(error).__name__}: '
                         f'{error}); was it written by another version?') from error
    arch, patch, patches = _shapes(state)
    described = {k: v for k, v in spec.arch.items() if k != 'num_heads'}
    sound = sound and spec.patch_size == patch and math.prod(spec.grid) == patches
    if (not sound or described != arch
            or arch['embed_dims'] % spec.arch['num_heads']):
        raise MilanError(f'{source}: its description ({encoder}) contradicts its weights ({arch}, '
                         f'patch {patch}, {patches} positions). Was the file put together by hand?')
    return spec


def _inferred_spec(state: dict[str, Tensor], source: str,
                   path: Path | None = None) -> EncoderSpec:
    arch, patch, patches = _shapes(state)
    width = arch['embed_dims']
    # Heads cannot be read off shapes. ViT-H's are 80 wide, those of the other sizes 64.
    arch['num_heads'] = known_heads(width, arch['num_layers']) or max(width // 64, 1)
    if 'rotary.periods' in state:
        arch['num_heads'] = width // max(4 * len(state['rotary.periods']), 1) or 1
    if width % arch['num_heads']:
        raise MilanError(f'{source} does not say how many heads its encoder has, and a width of '
                         f'{width} is no multiple of 64')
    grid = _grid_of(state['pos_embed'], 'cls_token' in state, source)
    # A norm before the blocks is CLIP's mark; only OpenAI published TorchScript archives, with
    # QuickGELU. Of other CLIP files the activation is unknown.
    quick_gelu: bool | None = False
    if 'pre_norm.weight' in state:
        quick_gelu = True if path is not None and is_torchscript(path) else None
    eps = 1e-5 if {'pre_norm.weight', 'rotary.periods'} & state.keys() else 1e-6  # CLIP, DINOv3
    channels = state['patch_embed.projection.weight'].shape[1]
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((127.5, ) * channels, ) * 2
    spec = EncoderSpec(arch, (grid[0] * patch, grid[1] * patch), patch, mean, std, quick_gelu, eps)
    pixels = ("ImageNet's pixel mean and standard deviation" if channels == 3 else
              'a pixel mean and standard deviation of 127.5')
    print_log(
        f'{source} does not describe its encoder. Inferred from the weights: {arch}, patch '
        f'{patch}, image {spec.img_size}. Assumed: {arch["num_heads"]} heads, {pixels}, norms '
        f'with {eps:g}', logger='current', level=logging.WARNING)
    return spec


def _grid_of(positions: Tensor, with_cls: bool, source: str) -> tuple[int, int]:
    """Rows and columns: fixed sine-cosine positions tell, others are taken for a square."""
    patches, width = positions.shape[1] - with_cls, positions.shape[2]
    side = math.isqrt(max(patches, 0))
    square = [(side, side)] if side and side * side == patches else []
    others = [(r, patches // r) for r in range(1, patches + 1) if patches % r == 0]
    if width % 4 == 0:
        for grid in square + others:
            fixed = sincos_positions(width, grid)[0, 1 - with_cls:]
            if torch.allclose(positions[0].float(), fixed, atol=2e-3):
                return grid
    if square:
        return square[0]
    raise MilanError(f'{source} has {patches} positions, which form no square, and they are not '
                     'sine-cosine ones, so the shape of its images is unknown')
