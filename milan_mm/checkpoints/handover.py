# SPDX-License-Identifier: Apache-2.0
"""Handing weights from one run to the next: every tensor accounted for, or an error."""
import re
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from ..errors import MilanError
from ..positions import sincos_positions
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
    problem = mismatch({k: v for k, v in own.items() if k not in new}, given, vit.in_file)
    if problem:
        raise MilanError(f'{vit.source} does not fit the encoder: {problem}.'
                         + _advice(own, vit))
    _check_heads(backbone, vit)
    _check_activation(backbone, vit)
    backbone.load_state_dict({**own, **given}, strict=True)
    needed = len(own) - len(new)
    words.insert(0, f'{len(given)} of {needed} encoder tensors ({len(given) / needed:.0%}) came '
                    f'from {vit.source}'.replace('%)', ' %)'))
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
    fixed = getattr(backbone, 'positions', None) == 'fixed'
    words: list[str] = []
    if fixed and is_sincos(positions, source):
        return sincos_positions(positions.shape[2], target).to(positions.dtype), words
    if source != target:
        positions = resize_pos_embed(positions, source, target, 'bicubic', 1)
        words.append(f'positions resized from {source[0]} x {source[1]} to '
                     f'{target[0]} x {target[1]}')
    if fixed:
        words.append("positions are the file's learned ones and stay as they are "
                     "(model.backbone.positions='learned' trains them)")
    return positions[:, 1 - backbone.num_extra_tokens:], words


def is_sincos(positions: Tensor, grid: tuple[int, int]) -> bool:
    """Whether positions (1, N, D) are the fixed sine-cosine ones of that grid."""
    width = positions.shape[2]
    return width % 4 == 0 and torch.allclose(positions.float(), sincos_positions(width, grid),
                                             atol=2e-3)


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
    remedies = (('pre_norm.weight', 'a norm before the blocks', 'pre_norm=True'),
                ('layers.0.attn.gamma1.weight', 'LayerScale', 'layer_scale_init_value=1.0'))
    for key, what, option in remedies:
        if (key in vit.encoder) != (key in own):
            has, lacks = ('The file has', 'the encoder has none') if key in vit.encoder else (
                'The encoder has', 'the file has none')
            return (f' {has} {what}, {lacks}: ' + (
                f'set model.backbone.{option} (--cfg-options model.backbone.{option})'
                if key in vit.encoder else f'leave model.backbone.{option} out'))
    sizes = ', '.join(f'{k} {v}' for k, v in vit.spec.arch.items())
    return (f' The file\'s: {sizes}, patch {vit.spec.patch_size}. Was it trained with another '
            'architecture or patch size?')


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
