# SPDX-License-Identifier: Apache-2.0
"""A ViT under the names that others load."""
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..errors import MilanError
from . import naming
from .io import write_atomically
from .naming import from_ours, to_published
from .spec import EncoderSpec, describe_spec
from .vit import ViTWeights, read_vit

TARGETS = ('milan_mm', 'mmpretrain', 'timm', 'hf', 'authors')


class Converted(NamedTuple):
    """What was written, and what was left out.

    Attributes:
        format: format of the source.
        kept: number of tensors in the file.
        dropped: names of what the source held beside them.
        unwrapped: in words, what the encoder was taken out of.
    """
    format: str
    kept: int
    dropped: list[str]
    unwrapped: str = ''


def convert(source: str | Path,
            target: str | Path,
            to: str,
            format: str | None = None,
            trust: bool = False,
            weights: str | None = None) -> Converted:
    """Writes the ViT of a file under another library's names; no value is changed.

    Args:
        source: see :func:`read_vit`.
        target: ``.pth``, ``.pt`` or ``.safetensors``; for 'hf' a new folder.
        to: 'milan_mm' (``backbone.*`` and ``neck.*``), 'mmpretrain' (``backbone.*`` alone),
            'timm' (``VisionTransformer``), 'hf' (``ViTModel``), or 'authors' (encoder and decoder
            side by side below the key 'model', as MAE and MILAN are published).
        format: format of the source; None finds out.
        trust: see :func:`read_checkpoint`.
        weights: see :func:`read_vit`.

    Raises:
        MilanError: if the source holds no whole vit, or the target has no place for a tensor
            of the encoder. Nothing is written then.
    """
    if to not in TARGETS:
        raise MilanError(f'unknown format {to!r}; known are {list(TARGETS)}')
    source, target = Path(source).expanduser(), Path(target).expanduser()
    _check_target(source, target, to)
    vit = read_vit(source, trust, format, weights=weights)
    state, dropped = _WRITERS[to](vit)
    state = {k: v.contiguous() for k, v in state.items()}
    if to == 'hf':
        _write_folder(target, state, vit.spec)
    else:
        described = vit.described if vit.format == 'milan_mm' else None
        _write_file(target, state, described or describe_spec(vit.spec), to)
    return Converted(vit.format, len(state), dropped + vit.beside, vit.unwrapped)


def _check_target(source: Path, target: Path, to: str) -> None:
    if target.exists() and source.exists() and target.samefile(source):
        raise MilanError(f'{target} is the source itself; give another target')
    if to == 'hf':
        if target.suffix in ('.pth', '.pt', '.safetensors'):
            raise MilanError(f'{target}: a Hugging Face model is a folder (config.json and '
                             'model.safetensors); give the name of a new folder')
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise MilanError(f'{target} exists and is not empty; give the name of a new folder')
    elif target.suffix not in ('.pth', '.pt', '.safetensors'):
        raise MilanError(f'{target}: the file must end in .pth, .pt or .safetensors')


def _below_backbone(vit: ViTWeights) -> dict[str, Tensor]:
    return {f'backbone.{key}': value for key, value in vit.encoder.items()}


def _as_milan_mm(vit: ViTWeights) -> tuple[dict[str, Tensor], list[str]]:
    neck = {f'neck.{key}': value for key, value in vit.decoder.items()}
    return {**_below_backbone(vit), **neck}, []


def _as_mmpretrain(vit: ViTWeights) -> tuple[dict[str, Tensor], list[str]]:
    return _below_backbone(vit), [f'neck.{key}' for key in vit.decoder]


def _as_authors(vit: ViTWeights) -> tuple[dict[str, Tensor], list[str]]:
    state, _ = _as_milan_mm(vit)
    return to_published(state), []


def _as_timm(vit: ViTWeights) -> tuple[dict[str, Tensor], list[str]]:
    return from_ours(vit.encoder, naming.TIMM)[0], [f'neck.{key}' for key in vit.decoder]


def _as_hf(vit: ViTWeights) -> tuple[dict[str, Tensor], list[str]]:
    state, nameless = from_ours(vit.encoder, naming.HF)
    needed = {'layernorm.weight': 'a final norm (ln1)', 'embeddings.cls_token': 'a CLS token'}
    absent = [words for key, words in needed.items() if key not in state]
    if nameless or absent or 'register_tokens' in vit.encoder:
        nameless += ['register_tokens'] * ('register_tokens' in vit.encoder)
        what = f'has no place for {nameless[0]}' if nameless else f'needs {absent[0]}'
        raise MilanError(f'{vit.source}: Hugging Face\'s ViTModel {what}. Use --to timm or '
                         '--to mmpretrain, or convert the pretraining checkpoint')
    for key in [k for k in state if '.attention.qkv.' in k]:
        head, kind = key.split('.qkv.')
        for part, value in zip(('query', 'key', 'value'), state.pop(key).chunk(3)):
            state[f'{head}.attention.{part}.{kind}'] = value
    return state, [f'neck.{key}' for key in vit.decoder]


_WRITERS: dict[str, Callable[[ViTWeights], Any]] = dict(
    milan_mm=_as_milan_mm, mmpretrain=_as_mmpretrain, timm=_as_timm, hf=_as_hf,
    authors=_as_authors)


def _write_file(target: Path, state: dict[str, Tensor], described: dict, to: str) -> None:
    if target.suffix == '.safetensors':
        metadata = dict(milan_mm=json.dumps(described), format='pt')
        write_atomically(target, lambda path: save_file(state, path, metadata))
        return
    # timm takes every entry of a plain file for a tensor, so there nothing stands beside them.
    content: dict[str, Any] = state if to == 'timm' else {
        'model' if to == 'authors' else 'state_dict': state, 'meta': dict(milan_mm=described)}
    write_atomically(target, lambda path: torch.save(content, path))


def _write_folder(target: Path, state: dict[str, Tensor], spec: EncoderSpec) -> None:
    qkv_bias = 'encoder.layer.0.attention.attention.query.bias' in state
    height, width = spec.img_size
    arch = spec.arch
    config = dict(
        architectures=['ViTModel'], model_type='vit', hidden_size=arch['embed_dims'],
        num_hidden_layers=arch['num_layers'], num_attention_heads=arch['num_heads'],
        intermediate_size=arch['feedforward_channels'],
        hidden_act='quick_gelu' if spec.quick_gelu else 'gelu', layer_norm_eps=spec.norm_eps,
        image_size=height if height == width else [height, width], patch_size=spec.patch_size,
        num_channels=len(spec.pixel_mean), qkv_bias=qkv_bias,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    pixels = dict(
        image_processor_type='ViTImageProcessor', do_resize=True, do_rescale=True,
        do_normalize=True, resample=3, rescale_factor=1 / 255,
        size=dict(height=height, width=width),
        crop_ratio=spec.crop_ratio,  # a key of this package's, that its reader takes
        image_mean=[v / 255 for v in spec.pixel_mean], image_std=[v / 255 for v in spec.pixel_std])
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f'.{target.name}.', dir=target.parent))
    try:
        save_file(state, folder / 'model.safetensors', dict(format='pt'))
        for name, content in (('config', config), ('preprocessor_config', pixels)):
            (folder / f'{name}.json').write_text(json.dumps(content, indent=2) + '\n')
        folder.chmod(0o755)
        os.replace(folder, target)  # whole or absent; an empty folder of that name may be there
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
