# SPDX-License-Identifier: Apache-2.0
"""Handing weights from one run to the next: every tensor accounted for, or an error."""
import math
import re
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from ..errors import MilanError
from ..positions import sincos_positions
from .spec import registers_of
from .strict import mismatch
from .vit import ViTWeights, read_vit

# Fixed sine-cosine positions belong to a grid, not to what was learned.
_DECODER_POSITIONS = 'decoder_pos_embed'


def load_encoder(backbone: nn.Module, vit: ViTWeights) -> str:
    """Puts the encoder of a file into a backbone, tensor by tensor.

    Args:
        backbone: a ViT in mmpretrain's names with ``grid_size`` and ``num_extra_tokens``. What no
            checkpoint can have for it stands in its ``new_parameters``, what it has no place for
            in its ``unused_parameters``: regular expressions of whole names.
        vit: what :func:`read_vit` gave.

    Returns:
        A sentence that says how many of the encoder's tensors came from the file, what is new, and
        what of the file is not used.

    Raises:
        MilanError: if anything else is missing, left over or misshapen; the first is named.
    """
    given = dict(vit.encoder)
    own = backbone.state_dict()
    left = [k for k in given if _any_of(backbone, 'unused_parameters', k) and k not in own]
    given = {k: v for k, v in given.items() if k not in left}
    new = [k for k in own if k not in given and _any_of(backbone, 'new_parameters', k)]
    words = []
    if 'pos_embed' in given:
        given['pos_embed'], said = fit_positions(given['pos_embed'], vit, backbone)
        words += said
    words += _fit_channels(given, own)
    problem = mismatch({k: v for k, v in own.items() if k not in new}, given, vit.in_file)
    if problem:
        raise MilanError(f'{vit.source} does not fit the encoder: {problem}.'
                         + _advice(own, vit))
    _check_heads(backbone, vit)
    _check_activation(backbone, vit)
    _compare_norms(backbone, vit)
    backbone.load_state_dict({**own, **given}, strict=True)
    needed = len(own) - len(new)
    words.insert(0, f'{len(given)} of {needed} encoder tensors ({len(given) / needed:.0%}) came '
                    f'from {vit.source}'.replace('%)', ' %)'))
    if vit.unwrapped:
        words.append(vit.unwrapped)
    for what, names in (('new here', new), ('of the file not used', left + vit.beside)):
        if names:
            words.append(f'{what}: {summary(names)}')
    return '; '.join(words)


def load_pretrained(model: nn.Module, path: str | Path, trust: bool = False) -> str:
    """Starts a model's encoder, and if it can its decoder, from weights of any known format.

    The encoder's tensors must be there all of them, and no other. The decoder's are taken if all
    of them fit; a run of another kind has another decoder, which then starts fresh.

    Args:
        model: with ``backbone`` and ``neck``.
        path: see :func:`read_vit`.
        trust: see :func:`read_checkpoint`.

    Returns:
        A sentence that says how many tensors came from the checkpoint.

    Raises:
        MilanError: naming the first encoder tensor that is missing, left over or misshapen.
    """
    vit = read_vit(path, trust)
    words = load_encoder(model.backbone, vit)
    decoder, own = ({k: v for k, v in state.items() if k != _DECODER_POSITIONS}
                    for state in (vit.decoder, model.neck.state_dict()))
    problem = mismatch(own, decoder) if decoder else 'the checkpoint has none'
    if problem:
        words += f'; the decoder starts fresh ({problem})'
    else:
        model.neck.load_state_dict({**model.neck.state_dict(), **decoder})
        words += f', and {len(own)} of {len(own)} decoder tensors'
    print_log(words, logger='current')
    return words


def fit_positions(positions: Tensor, vit: ViTWeights,
                  backbone: nn.Module) -> tuple[Tensor, list[str]]:
    """Brings positions (1, 1 + N, D) to the grid of a backbone, with or without its CLS row.

    They are interpolated (bicubic), so that a patch keeps the position it has in the image. A
    pretraining encoder, whose positions are fixed sine-cosine ones, gets those of its own grid.

    Returns:
        The positions, and what there is to say of them.
    """
    source, target = vit.spec.grid, tuple(backbone.grid_size)
    extra = int('cls_token' in vit.encoder)
    fixed = getattr(backbone, 'positions', None) == 'fixed'
    words: list[str] = []
    if fixed and is_sincos(positions, source):
        whole = sincos_positions(positions.shape[2], target).to(positions.dtype)
        return whole[:, 1 - backbone.num_extra_tokens:], words
    if source != target:
        positions = resize_pos_embed(positions, source, target, 'bicubic', extra)
        words.append(f'positions resized from {source[0]} x {source[1]} to '
                     f'{target[0]} x {target[1]}')
    if fixed and positions.any():
        words.append("positions are the file's learned ones and stay as they are "
                     "(model.backbone.positions='learned' trains them)")
    return positions[:, max(extra - backbone.num_extra_tokens, 0):], words


def is_sincos(positions: Tensor, grid: tuple[int, int]) -> bool:
    """Whether positions, with or without CLS's, are the fixed sine-cosine ones of that grid."""
    width, count = positions.shape[2], positions.shape[1]
    if width % 4 or count - math.prod(grid) not in (0, 1):
        return False
    fixed = sincos_positions(width, grid)[:, 1 + math.prod(grid) - count:]
    return torch.allclose(positions.float(), fixed, atol=2e-3)


def summary(names: list[str]) -> str:
    """Names of tensors in a line; of many below one part the part: ``neck.* (36)``."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split('.')[0], []).append(name)
    shown: list[str] = []
    for part, members in groups.items():
        shown += members if len(members) <= 4 else [f'{part}.* ({len(members)})']
    return ', '.join(shown)


def _any_of(backbone: nn.Module, attribute: str, key: str) -> bool:
    return any(re.fullmatch(pattern, key) for pattern in getattr(backbone, attribute, ()))


def _advice(own: dict[str, Tensor], vit: ViTWeights) -> str:
    """How to make a place for what the file has, where this ViT can have one."""
    remedies = (
        ('pre_norm.weight', 'a norm before the blocks', 'pre_norm=True', False),
        ('layers.0.attn.gamma1.weight', 'LayerScale', 'layer_scale_init_value=1.0', False),
        ('register_tokens', 'register tokens', f'num_registers={registers_of(vit.encoder)}', False),
        ('rotary.periods', 'rotary positions', 'rotary=True', False),
        ('cls_token', 'a CLS token', 'with_cls_token=False', True),
        ('layers.0.attn.qkv.bias', 'biases of queries, keys and values', 'qkv_bias=False', True))
    wrong = [(what, option, usual, key in vit.encoder) for key, what, option, usual in remedies
             if (key in vit.encoder) != (key in own)]
    if wrong:
        what, _, _, in_file = wrong[0]
        has, lacks = ('The file has', 'the encoder has none') if in_file else (
            'The encoder has', 'the file has none')
        to_set = [f'model.backbone.{option}' for _, option, usual, there in wrong
                  if there != usual]
        unset = [f'model.backbone.{option}' for _, option, usual, there in wrong if there == usual]
        return f' {has} {what}, {lacks}: ' + ' and '.join(
            [f'set {" ".join(to_set)} (--cfg-options {" ".join(to_set)})'] * bool(to_set)
            + [f'leave {" ".join(unset)} out'] * bool(unset))
    sizes = ', '.join(f'{k} {v}' for k, v in vit.spec.arch.items())
    return (f' The file\'s: {sizes}, patch {vit.spec.patch_size}. Was it trained with another '
            'architecture or patch size?')


def _fit_channels(given: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    """Brings the patch map, in place, to another number of input channels; gives what to say.

    The channels are repeated in turn and scaled, so that an image whose channels are all alike
    gives what it gave. A single channel gets the sum.
    """
    key = 'patch_embed.projection.weight'
    weight, target = given.get(key), own[key]
    if weight is None or weight.ndim != 4 or weight.shape[1] == target.shape[1]:
        return []
    old, new = weight.shape[1], target.shape[1]
    if new < old:
        given[key] = weight.sum(dim=1, keepdim=True).repeat(1, new, 1, 1) / new
    else:
        given[key] = weight.repeat(1, -(-new // old), 1, 1)[:, :new] * (old / new)
    return [f'patch map brought from {old} to {new} channels']


def _compare_norms(backbone: nn.Module, vit: ViTWeights) -> None:
    ours = next(part.eps for part in backbone.modules() if isinstance(part, nn.LayerNorm))
    theirs = vit.spec.norm_eps
    if ours != theirs:
        print_log(f'{vit.source} was trained with norms that add {theirs:g} to the variance, those '
                  f'of this encoder add {ours:g}. To have the same: --cfg-options '
                  f'model.backbone.norm_cfg.type=LN model.backbone.norm_cfg.eps={theirs:g}',
                  logger='current')


def _check_heads(backbone: nn.Module, vit: ViTWeights) -> None:
    """Heads have no weights of their own: another number loads, and computes something else."""
    theirs, ours = vit.spec.arch['num_heads'], backbone.arch_settings['num_heads']
    if theirs == ours:
        return
    if vit.described is not None:
        raise MilanError(f'{vit.source} was trained with {theirs} heads and this encoder has '
                         f'{ours}: set model.backbone.arch.num_heads={theirs}')
    print_log(f'{vit.source} does not say how many heads it was trained with; this encoder has '
              f'{ours}, {theirs} would be usual for its width', logger='current', level=30)


def _check_activation(backbone: nn.Module, vit: ViTWeights) -> None:
    """QuickGELU and GELU have no weights, so only a name can tell them apart."""
    names = {type(m).__name__ for m in backbone.modules() if 'GELU' in type(m).__name__}
    quick = 'QuickGELU' in names
    option = "model.backbone.layer_cfgs=dict(act_cfg=dict(type='mmpretrain.QuickGELU'))"
    if vit.spec.quick_gelu is None:
        print_log(f'{vit.source} does not say which GELU it was trained with; this encoder '
                  f'uses {"QuickGELU" if quick else "GELU"}. OpenAI\'s weights need QuickGELU '
                  f'({option}), most others GELU', logger='current', level=30)
    elif names and vit.spec.quick_gelu != quick:
        kinds = ('GELU', 'QuickGELU')
        raise MilanError(
            f'{vit.source} was trained with {kinds[vit.spec.quick_gelu]} and this encoder '
            f'uses {kinds[quick]}: features would be quietly wrong. '
            + (f'Set {option}' if vit.spec.quick_gelu else f'Leave {option} out'))
