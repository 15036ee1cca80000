# SPDX-License-Identifier: Apache-2.0
"""From a name or a file to a CLIP image tower: which architecture, which weights, which GELU."""
import json
import math
from collections.abc import Sequence
from pathlib import Path

import open_clip
from mmengine.logging import print_log
from open_clip.transformer import LayerNorm, QuickGELU, VisionTransformer
from torch import Tensor, nn

from ...checkpoints.hf_clip import is_hf_clip_folder, read_hf_clip_folder
from ...checkpoints.io import first_line, in_float32, read_checkpoint, state_of
from ...checkpoints.remote import announce
from ...checkpoints.strict import load_strictly
from ...checkpoints.zoo import named, nearest
from ...errors import MilanError
from ...reachable import check_teacher_at_hand
from ...wording import some_of
from .clip_towers import wrap_tower
from .tower import Tower


def load_clip_tower(model: str | None, pretrained: str | None,
                    quickgelu: bool | None = None) -> Tower:
    """Loads the image tower of a CLIP model; the text tower is dropped.

    The arguments are those of :class:`milan_mm.CLIPTargetGenerator`.

    Raises:
        MilanError: if the name, the tag or the file does not lead to a usable tower, or if
            ``quickgelu`` contradicts the weights.
    """
    if pretrained is None:
        return _random_tower(model, quickgelu)
    path = named(pretrained)
    if path.is_dir():
        return _from_folder(path, quickgelu)
    if path.is_file():
        return _from_file(path, model, quickgelu)
    if model is None or any(mark in pretrained for mark in '/\\'):
        raise MilanError(
            f'teacher weights not found: {pretrained!r} is neither a file nor a folder here. Give '
            f'an existing path, a name of milan_mm.list_models(){nearest(pretrained)}, or an '
            "open_clip name and tag such as model='ViT-B-16-quickgelu', pretrained='openai'")
    return _from_tag(model, pretrained, quickgelu)


def tower_from_state(state: dict[str, Tensor], quickgelu: bool, *, name: str,
                     num_heads: int | None = None,
                     image_size: Sequence[int] | None = None) -> Tower:
    """A CLS tower whose architecture is read off its weights.

    Args:
        state: weights in OpenAI's names, with or without ``visual.``; others are ignored.
        quickgelu: whether the MLPs use QuickGELU.
        name: what to call the source in an error.
        num_heads: heads of every block; None for width / 64, as in every published CLIP ViT.
        image_size: height and width in pixels the positions are for; None for a square.

    Raises:
        MilanError: if weights are missing, or the positions fit no such image.
    """
    towers = any(key.startswith('visual.') for key in state)
    state = in_float32({key.removeprefix('visual.'): value for key, value in state.items()
                        if key.startswith('visual.') or not towers})
    needed = ('conv1.weight', 'positional_embedding', 'class_embedding', 'proj', 'ln_post.weight',
              'transformer.resblocks.0.mlp.c_fc.weight')
    missing = [key for key in needed if key not in state]
    if missing:
        raise MilanError(
            f'{name} does not look like a CLIP ViT: it lacks {missing[0]} (has '
            f'{some_of(list(state), 3) or "no tensors"}). Expected a state dict of OpenAI\'s '
            'or open_clip\'s naming; for a timm-based tower also give its open_clip model name')
    width, _, patch, _ = state['conv1.weight'].shape
    if image_size is None:
        side = math.isqrt(len(state['positional_embedding']) - 1)
        image_size = (side * patch, side * patch)
    visual = VisionTransformer(
        image_size=tuple(image_size),
        patch_size=patch,
        width=width,
        layers=len({k.split('.')[2] for k in state if k.startswith('transformer.resblocks.')}),
        heads=num_heads or max(width // 64, 1),
        mlp_ratio=state['transformer.resblocks.0.mlp.c_fc.weight'].shape[0] / width,
        output_dim=state['proj'].shape[1],
        act_layer=QuickGELU if quickgelu else nn.GELU,
        norm_layer=LayerNorm)
    _load_visual(visual, state, name)
    return wrap_tower(visual, name)


def _random_tower(model: str | None, quickgelu: bool | None) -> Tower:
    if model is None:
        raise MilanError('a CLIP teacher needs model (an open_clip name) or pretrained (a file or '
                         'folder), and got neither')
    _check_known(model)
    config = open_clip.get_model_config(model)
    _check_quickgelu(quickgelu, bool(config.get('quick_gelu')), f'the model name {model}')
    print_log(f'Teacher {model} has random weights: pretrained=None is for tests only',
              logger='current', level=30)
    return wrap_tower(open_clip.create_model(model).visual, model)


def _from_tag(model: str, tag: str, quickgelu: bool | None) -> Tower:
    _check_known(model)
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag.lower() not in [t.lower() for t in tags]:
        raise MilanError(f'open_clip has no weights {tag!r} for {model!r}; it has '
                         f'{tags or "none"}. Give one of them, or the path of a file')
    built_with = bool(open_clip.get_model_config(model).get('quick_gelu'))
    weights_want = open_clip.get_pretrained_cfg(model, tag).get('quick_gelu')
    if weights_want is not None and bool(weights_want) != built_with:
        other = f'{model}-quickgelu' if weights_want else model.removesuffix('-quickgelu')
        raise MilanError(
            f'{model} is built with {_gelu(built_with)}, and the weights {tag!r} were trained '
            f'with {_gelu(weights_want)}: features would be quietly wrong. Use model={other!r}')
    _check_quickgelu(quickgelu, built_with, f'{model} with weights {tag!r}')
    if hub := _hub_of(model, tag):
        check_teacher_at_hand(f'{model}:{tag}', hub)
    announce_clip(model, tag)
    try:
        clip = open_clip.create_model(model, pretrained=tag)
    except Exception as error:
        raise MilanError(
            f'the weights {tag!r} of {model} could not be loaded ({type(error).__name__}: '
            f'{first_line(error)}). They are downloaded at first use: without a connection, copy '
            'the file here and give its path as pretrained') from error
    return wrap_tower(clip.visual, f'{model} ({tag})')


def announce_clip(model: str, tag: str) -> None:
    """See :func:`announce`; open_clip takes what the Hugging Face Hub has from there."""
    hub = _hub_of(model, tag)
    announce(f'https://huggingface.co/{hub}' if hub else
             str((open_clip.get_pretrained_cfg(model, tag) or {}).get('url')))


def _hub_of(model: str, tag: str) -> str:
    """The repository of the Hugging Face Hub; '' where the weights have another address."""
    return str((open_clip.get_pretrained_cfg(model, tag) or {}).get('hf_hub', '')).rstrip('/')


def _from_folder(folder: Path, quickgelu: bool | None) -> Tower:
    if is_hf_clip_folder(folder):
        hf = read_hf_clip_folder(folder)
        _check_quickgelu(quickgelu, hf.quickgelu, f'config.json of {folder}')
        tower = tower_from_state(hf.state, hf.quickgelu, name=str(folder),
                                 num_heads=hf.num_heads, image_size=hf.image_size)
        tower.mean, tower.std = hf.mean or tower.mean, hf.std or tower.std
        return tower
    description = folder / 'open_clip_config.json'
    weights = [folder / f for f in ('open_clip_model.safetensors', 'open_clip_pytorch_model.bin',
                                    'open_clip_model.bin') if (folder / f).is_file()]
    if not description.is_file() or not weights:
        raise MilanError(
            f'{folder} is not a folder of CLIP weights: expected open_clip_config.json with '
            'open_clip_model.safetensors (open_clip), or config.json with model.safetensors '
            f'(Hugging Face); found {sorted(p.name for p in folder.iterdir())[:6]}')
    try:
        config = json.loads(description.read_text())
        model_cfg = dict(config['model_cfg'])
        visual = build_visual(model_cfg)
    except (KeyError, TypeError, ValueError) as error:
        raise MilanError(f'{description} does not describe a model that open_clip can build '
                         f'({type(error).__name__}: {first_line(error)})') from error
    _check_quickgelu(quickgelu, bool(model_cfg.get('quick_gelu')), str(description))
    _load_visual(visual, state_of(read_checkpoint(weights[0])), str(weights[0]))
    tower = wrap_tower(visual, str(folder))
    pixels = config.get('preprocess_cfg') or {}
    tower.mean, tower.std = (tuple(pixels.get(name) or getattr(tower, name))
                             for name in ('mean', 'std'))
    return tower


def build_visual(model_cfg: dict) -> nn.Module:
    """The image tower that ``open_clip`` builds for a model's description.

    The text tower, which may be of any library, is replaced by the smallest there is, and dropped.
    """
    vision = dict(model_cfg['vision_cfg'])
    if vision.get('timm_model_name'):
        vision['timm_model_pretrained'] = False  # the weights are at hand
    text = dict(context_length=1, vocab_size=1, width=8, heads=1, layers=1)
    return open_clip.CLIP(embed_dim=model_cfg['embed_dim'], vision_cfg=vision, text_cfg=text,
                          quick_gelu=bool(model_cfg.get('quick_gelu'))).visual


def _from_file(path: Path, model: str | None, quickgelu: bool | None) -> Tower:
    if (path.parent / 'open_clip_config.json').is_file() and path.stem.startswith('open_clip'):
        return _from_folder(path.parent, quickgelu)
    state = state_of(read_checkpoint(path))
    if model is not None:
        _check_known(model)
        built_with = bool(open_clip.get_model_config(model).get('quick_gelu'))
        _check_quickgelu(quickgelu, built_with, f'the model name {model}')
        visual = open_clip.create_model(model).visual
        _load_visual(visual, state, str(path))
        return wrap_tower(visual, str(path))
    if quickgelu is None:
        raise MilanError(
            f'{path} does not say which GELU it was trained with. OpenAI\'s weights: '
            'quickgelu=True; most of LAION\'s: quickgelu=False; or give the open_clip model name')
    return tower_from_state(state, quickgelu, name=str(path))


def _load_visual(visual: nn.Module, state: dict[str, Tensor], name: str) -> None:
    own = {k.removeprefix('visual.'): v for k, v in state.items() if k.startswith('visual.')}
    load_strictly(visual, own or state, f'{name} does not fit the image tower',
                  'Is the model name the one these weights belong to?')


def _check_known(model: str) -> None:
    if model not in open_clip.list_models():
        import difflib
        near = difflib.get_close_matches(model, open_clip.list_models(), n=3, cutoff=0.4)
        raise MilanError(f'open_clip knows no model {model!r}; near to it are {near}')


def _check_quickgelu(asked: bool | None, found: bool, source: str) -> None:
    if asked is not None and asked != found:
        raise MilanError(f'quickgelu={asked} contradicts {source}, which says {_gelu(found)}. '
                         'Leave quickgelu out, or give other weights')


def _gelu(quick: bool) -> str:
    return 'QuickGELU' if quick else 'GELU'
