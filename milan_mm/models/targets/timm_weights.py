# SPDX-License-Identifier: Apache-2.0
"""From a name, a file or a folder to a ViT of timm, every tensor accounted for."""
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import timm
from mmengine.logging import print_log
from torch import Tensor, nn

from ...checkpoints.hf_dinov2 import is_hf_dinov2, read_hf_dinov2
from ...checkpoints.io import first_line, in_float32, read_checkpoint, state_of
from ...checkpoints.remote import announce
from ...checkpoints.strict import load_strictly
from ...errors import MilanError
from .timm_towers import pooling_of


class TimmVit(NamedTuple):
    """A model of timm with its weights.

    Attributes:
        vit: without its classifier.
        name: what to call it in an error.
        mean, std: its pixel statistics, in 0..1; None for what timm says of the model.
    """
    vit: nn.Module
    name: str
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


def load_timm_vit(model: str | None, pretrained: str | None,
                  model_args: dict[str, Any] | None = None, trust: bool = False) -> TimmVit:
    """Builds a model and loads its weights; see :class:`TimmTargetGenerator`.

    Raises:
        MilanError: if there is no such model, tag, file or folder, or they do not fit.
    """
    args = dict(model_args or {})
    if pretrained is None:
        vit = build(model, args)
        tag = str(model).partition('.')[2]
        if tag:
            raise MilanError(f'{model!r} names weights, and without pretrained they would stay '
                             f'random: set pretrained={tag!r} or a file, or leave the tag out of '
                             'the name')
        print_log(f'Teacher {model} has random weights: pretrained=None is for tests only',
                  logger='current', level=30)
        return TimmVit(vit, str(model))
    path = Path(pretrained).expanduser()
    if path.is_dir():
        return _from_folder(path, args, trust)
    if path.is_file():
        vit = build(model, args)
        load_converted(vit, state_of(read_checkpoint(path, trust)), str(path))
        return TimmVit(vit, str(path))
    if model is None or any(mark in pretrained for mark in '/\\'):
        raise MilanError(
            f'teacher weights not found: {pretrained!r} is neither a file nor a folder here. Give '
            'an existing path, or a model and a tag of timm such as '
            "model='vit_base_patch16_224', pretrained='dino'")
    return _from_tag(model, pretrained, args)


def build(model: str | None, args: dict[str, Any]) -> nn.Module:
    """A model of timm without classifier, with random weights.

    Raises:
        MilanError: if timm knows no such model, it takes no such arguments, or it is no ViT.
    """
    if model is None:
        raise MilanError("a teacher of timm needs model, such as 'vit_base_patch16_224.dino', or "
                         'pretrained, a folder that describes itself; got neither')
    name = model.partition('.')[0]
    loads = [key for key in args if key.startswith('pretrained') or key.endswith(('_path', '_dir'))]
    if loads:  # a folder from anywhere may hold them, and timm would read what they name
        raise MilanError(f'{loads[0]} is no argument of a teacher of timm: its weights are what '
                         'pretrained names')
    if not timm.is_model(name):
        import difflib
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        raise MilanError(f'timm knows no model {name!r}; near to it are {near}')
    try:
        vit = timm.create_model(model, pretrained=False, **arguments(name, args))
    except (RuntimeError, TypeError, AssertionError, ValueError) as error:
        raise MilanError(f'timm cannot build {model!r} with {args} ({type(error).__name__}: '
                         f'{first_line(error)})') from error
    pooling_of(vit, model)
    return vit


def arguments(name: str, args: dict[str, Any]) -> dict[str, Any]:
    """What a model is built with: no classifier, and the pooling it was trained for.

    timm pools DINOv3 by the mean, although its loss trains the CLS token, as DINOv2's does.
    """
    pooled = dict(global_pool='token') if 'dinov3' in name else {}
    return {**pooled, 'num_classes': 0, **args}


def load_converted(vit: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Loads weights in any naming that timm itself converts for this model.

    A classifier in the file is left out; anything else that is missing or left over is an error.
    Positions of another grid are interpolated, as timm does.

    Raises:
        MilanError: naming the first tensor that does not fit.
    """
    convert = importlib.import_module(type(vit).__module__).checkpoint_filter_fn
    try:
        given = convert(in_float32(state), vit)
    except (KeyError, RuntimeError, AttributeError, ValueError, AssertionError) as error:
        raise MilanError(f'{source} is not of this model of timm: converting it fails with '
                         f'{type(error).__name__}: {first_line(error)}') from error
    own = vit.state_dict()
    beside = [k for k in given if k not in own and k.startswith(('head.', 'head_dist.'))]
    given = {k: v for k, v in given.items() if k not in beside}
    load_strictly(vit, given, f'{source} does not fit the model of timm',
                  'Is the model name the one these weights belong to?')
    print_log(f'Teacher: {len(given)} of {len(own)} tensors (100 %) came from {source}'
              + (f'; not used: {", ".join(beside)}' if beside else ''), logger='current')


def _from_tag(model: str, tag: str, args: dict[str, Any]) -> TimmVit:
    name = model.partition('.')[0]
    build(name, args)  # known, and a ViT, before anything is downloaded
    tags = tags_of(name)
    if tag not in tags:
        raise MilanError(f'timm has no weights {tag!r} for {name!r}; it has {tags or "none"}. '
                         'Give one of them, or the path of a file')
    told: Any = timm.get_pretrained_cfg(f'{name}.{tag}')
    announce(f'https://huggingface.co/{told.hf_hub_id}' if told.hf_hub_id else str(told.url))
    try:
        vit = timm.create_model(f'{name}.{tag}', pretrained=True, **arguments(name, args))
    except Exception as error:
        raise MilanError(
            f'the weights {tag!r} of {name} could not be loaded ({type(error).__name__}: '
            f'{first_line(error)}). They are downloaded at first use: without a connection, copy '
            'the file here and give its path as pretrained') from error
    return TimmVit(vit, f'{name}.{tag}')


def tags_of(name: str) -> list[str]:
    """The tags that timm has weights for."""
    return sorted(full.partition('.')[2] for full in timm.list_pretrained(f'{name}.*'))


def _from_folder(folder: Path, args: dict[str, Any], trust: bool) -> TimmVit:
    weights = [folder / name for name in ('model.safetensors', 'pytorch_model.bin')
               if (folder / name).is_file()]
    if not (folder / 'config.json').is_file() or not weights:
        raise MilanError(
            f'{folder} is not a folder of a ViT: expected config.json with model.safetensors '
            f'(timm, Hugging Face), found {sorted(p.name for p in folder.iterdir())[:6]}')
    try:
        config = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
    except ValueError as error:
        raise MilanError(f'{folder}/config.json is no JSON ({error})') from error
    if is_hf_dinov2(config):
        found = read_hf_dinov2(folder, trust)
        load_converted(found.vit, found.state, str(weights[0]))
        return TimmVit(found.vit, str(folder), found.mean, found.std)
    if not isinstance(config.get('architecture'), str):
        raise MilanError(
            f'{folder}/config.json describes a {config.get("model_type")!r} model; expected one of '
            "timm ('architecture'), or 'dinov2' or 'dinov2_with_registers' of Hugging Face. "
            'A ViT of theirs is read by milan_mm.EncoderTargetGenerator, a CLIP by '
            'milan_mm.CLIPTargetGenerator')
    vit = build(config['architecture'], {**(config.get('model_args') or {}), **args,
                                         'num_classes': 0})
    load_converted(vit, state_of(read_checkpoint(weights[0], trust)), str(weights[0]))
    pixels = config.get('pretrained_cfg') or {}
    return TimmVit(vit, str(folder), pixels.get('mean'), pixels.get('std'))
