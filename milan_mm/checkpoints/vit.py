# SPDX-License-Identifier: Apache-2.0
"""From a file of weights, whoever wrote it, to a ViT whose every tensor is accounted for."""
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import MilanError
from ..wording import some_of
from . import naming
from .io import read_checkpoint, state_of
from .naming import in_file, to_ours, why_foreign
from .spec import EncoderSpec, describe_by_folder, read_spec
from .strict import mismatch

FORMATS = ('milan_mm', 'mmpretrain', 'authors', 'timm', 'hf', 'clip')
Path_ = str | Path
_OUTER = ('cls_token', 'pos_embed', 'patch_embed.projection.weight')
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
    """
    source: str
    format: str
    encoder: dict[str, Tensor]
    decoder: dict[str, Tensor]
    beside: list[str]
    spec: EncoderSpec
    described: dict[str, Any] | None

    def in_file(self, key: str) -> str:
        """What the file calls an encoder's tensor, for messages."""
        return in_file(key, self.format, _has_scales(self.encoder))


def read_vit(path: Path_, trust: bool = False, format: str | None = None,
             content: dict[str, Any] | None = None) -> ViTWeights:
    """Reads a ViT; nothing in the file is executed.

    Args:
        path: a training checkpoint or export of this package or of mmpretrain, a file as MAE's and
            MILAN's authors publish them, of timm, of DINOv2, of CLIP; or a Hugging Face folder.
        trust: see :func:`read_checkpoint`.
        format: one of :data:`FORMATS`; None finds out.
        content: what :func:`read_checkpoint` gave for the path, if it was read already.

    Raises:
        MilanError: if it holds no such ViT, or a tensor of one is missing, left over, or has a
            shape that contradicts the others'. The first of them is named.
    """
    path = Path(path).expanduser()
    checkpoint, by_folder = (content, None) if content else _read(path, trust)
    state = state_of(checkpoint)
    format = format or recognise(state, str(path))
    if format not in FORMATS:
        raise MilanError(f'unknown format {format!r}; known are {list(FORMATS)}')
    encoder, decoder, beside = _READERS[format](state, str(path))
    check_encoder(encoder, str(path), format)
    spec, described = read_spec(path, checkpoint, encoder, by_folder)
    return ViTWeights(str(path), format, encoder, decoder, sorted(beside), spec, described)


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
            ('hf', r'(\w+\.)?embeddings\.cls_token|(\w+\.)?encoder\.layer\.')):
        if has(pattern):
            own = format == 'mmpretrain' and has(r'neck\.decoder_blocks\.0\.attn\.kv\.')
            return 'milan_mm' if own else format
    raise MilanError(
        f'{source} holds no encoder of a known kind (has '
        f'{some_of(list(state), 3) or "no tensors"}). Expected a checkpoint of this package, '
        "of mmpretrain's VisionTransformer, of MAE or MILAN as published, of timm, of DINOv2, of "
        "CLIP, or a Hugging Face ViT's folder")


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
    for key in (*_OUTER, 'layers.0.ffn.layers.0.0.weight'):
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
    expected = {'cls_token': (1, 1, width), 'patch_embed.projection.weight': tuple(patch_map.shape),
                'pos_embed': (1, encoder['pos_embed'].shape[1], width)}
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
        for name in _BLOCK:
            module, _, kind = name.rpartition('.')
            expected[f'layers.{i}.{name}'] = shapes[module][:2 if kind == 'weight' else 1]
        expected.update({f'layers.{i}.{name}': (width, ) for name in scales})
    return expected


def _read(path: Path, trust: bool) -> tuple[dict[str, Any], dict | None]:
    """A file's content, and what a folder's config.json says."""
    if not path.is_dir():
        return read_checkpoint(path, trust), None
    weights = [path / name for name in ('model.safetensors', 'pytorch_model.bin')
               if (path / name).is_file()]
    if not (path / 'config.json').is_file() or not weights:
        raise MilanError(
            f'{path} is not a folder of ViT weights: expected config.json with model.safetensors '
            f'(Hugging Face), found {sorted(p.name for p in path.iterdir())[:6] or "nothing"}. '
            'Of a run of this package give the checkpoint, not the folder')
    try:
        config, pixels = (
            json.loads((path / name).read_text(encoding='utf-8')) if (path / name).is_file() else {}
            for name in ('config.json', 'preprocessor_config.json'))
    except ValueError as error:
        raise MilanError(f'{path}: its config.json or preprocessor_config.json is no JSON '
                         f'({error})') from error
    return read_checkpoint(weights[0], trust), describe_by_folder(config, pixels, str(path))


_Parts = tuple[dict[str, Tensor], dict[str, Tensor], list[str]]


def _encoder_of(state: dict[str, Tensor], names: naming.Naming, source: str) -> naming.Renamed:
    found = to_ours(state, names)
    for key in found.unknown:
        why = why_foreign(key, names)
        if why:
            raise MilanError(f'{source} cannot be taken over: {why} ({key})')
    found.ours.update({key: state[key] for key in found.unknown})  # check_encoder names them
    return found


def _read_openmmlab(state: dict[str, Tensor], source: str) -> _Parts:
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


def _read_published(state: dict[str, Tensor], source: str) -> _Parts:
    found = _encoder_of(state, naming.TIMM, source)
    beside = {key: state[key] for key in found.beside}
    decoder = {k: v for k, v in beside.items() if k.startswith('decoder_') or k == 'mask_token'}
    if 'decoder_embed.weight' not in decoder:
        return found.ours, {}, list(beside)
    left = [key for key in beside if key not in decoder]
    neck = naming.to_openmmlab(decoder)
    return found.ours, {k.removeprefix('neck.'): v for k, v in neck.items()}, left


def _read_hf(state: dict[str, Tensor], source: str) -> _Parts:
    prefix = next((m.group(1) for m in (re.match(r'(\w+\.)(embeddings|encoder)\.', k)
                                        for k in state) if m), '')
    state = {k.removeprefix(prefix): v for k, v in state.items()}
    for key in [k for k in state if '.attention.query.' in k]:
        head, kind = key.split('.attention.query.')
        parts = [f'{head}.attention.{p}.{kind}' for p in ('query', 'key', 'value')]
        absent = [p for p in parts if p not in state]
        if absent:
            raise MilanError(f'{source} does not hold a whole encoder: missing {absent[0]}')
        state[f'{head}.qkv.{kind}'] = torch.cat([state.pop(p) for p in parts])
    dinov2 = any('.layer_scale1.' in k for k in state)
    found = _encoder_of(state, naming.HF_DINOV2 if dinov2 else naming.HF, source)
    return found.ours, {}, found.beside


def _read_clip(state: dict[str, Tensor], source: str) -> _Parts:
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


_READERS: dict[str, Callable[[dict[str, Tensor], str], _Parts]] = dict(
    milan_mm=_read_openmmlab, mmpretrain=_read_openmmlab, authors=_read_published,
    timm=_read_published, hf=_read_hf, clip=_read_clip)
