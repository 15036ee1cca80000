# SPDX-License-Identifier: Apache-2.0
"""From class names to directions in CLIP's space; the text tower is needed for this alone."""
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from mmengine.logging import print_log
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ...checkpoints.io import first_line, read_checkpoint, state_of, write_atomically
from ...checkpoints.strict import load_strictly
from ...checkpoints.zoo import named
from ...errors import MilanError
from ...inference.teachers import split_spec
from ...models.targets.clip_weights import announce_clip

_WEIGHTS = ('open_clip_model.safetensors', 'open_clip_pytorch_model.bin', 'open_clip_model.bin')


class Texts(NamedTuple):
    """Directions of classes.

    Attributes:
        classes: names, as the class folders have them.
        prompts: the templates whose directions were averaged.
        directions: (C, T) of unit length.
        source: the text tower.
    """
    classes: tuple[str, ...]
    prompts: tuple[str, ...]
    directions: Tensor
    source: str


class TextTower(NamedTuple):
    """A CLIP's text side.

    Attributes:
        model: with ``encode_text``.
        tokenize: a list of texts to (n, context) token ids.
        source: what it was read from.
    """
    model: nn.Module
    tokenize: Callable[[list[str]], Tensor]
    source: str


def load_text_tower(spec: str) -> TextTower:
    """A text tower, in eval mode.

    Args:
        spec: a folder of ``open_clip``, or ``MODEL:TAG_OR_FILE`` in its names; or a name of
            :func:`list_models` whose weights are such a folder.

    Raises:
        MilanError: if there is no text tower in it.
    """
    model, pretrained = split_spec(spec)
    if model is None:
        clip, context = _from_folder(named(pretrained))
        return TextTower(clip.eval(), open_clip.SimpleTokenizer(context_length=context), spec)
    if model not in open_clip.list_models():
        raise MilanError(f'open_clip knows no model {model!r}; give MODEL:TAG such as '
                         'ViT-B-16-quickgelu:openai, or a folder of open_clip')
    path = Path(pretrained).expanduser()
    if not path.is_file():
        announce_clip(model, pretrained)
    try:
        clip = open_clip.create_model(model, pretrained=None if path.is_file() else pretrained)
        tokenize = open_clip.get_tokenizer(model)
    except Exception as error:
        raise MilanError(
            f'the text tower {spec} could not be loaded ({type(error).__name__}: '
            f'{first_line(error)}). Weights and tokenizer are downloaded at first use; without a '
            'connection, give a folder of open_clip, or --text FILE of an earlier --save-text'
            ) from error
    if path.is_file():
        _load(clip, state_of(read_checkpoint(path)), str(path))
    return TextTower(clip.eval(), tokenize, spec)


def _from_folder(folder: Path) -> tuple[nn.Module, int]:
    description = folder / 'open_clip_config.json'
    weights = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if not description.is_file() or not weights:
        raise MilanError(f'{folder} gives no text tower: expected a folder of open_clip '
                         '(open_clip_config.json and open_clip_model.safetensors), or '
                         'MODEL:TAG_OR_FILE such as ViT-B-16-quickgelu:openai')
    try:
        config = dict(json.loads(description.read_text())['model_cfg'])
        foreign = [key for key in config['text_cfg'] if key.startswith('hf_')]
        if foreign:  # built, and perhaps downloaded, by transformers; its tokens are others
            raise MilanError(f'{description} has a text tower of transformers ({foreign[0]}); only '
                             'those of open_clip itself are read from a folder')
        config['vision_cfg'] = {**config['vision_cfg'], 'timm_model_pretrained': False}
        clip = open_clip.CLIP(**{k: v for k, v in config.items() if k != 'custom_text'})
        context = config['text_cfg'].get('context_length', 77)
    except MilanError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise MilanError(f'{description} does not describe a model that open_clip can build '
                         f'({type(error).__name__}: {first_line(error)})') from error
    _load(clip, state_of(read_checkpoint(weights[0])), str(weights[0]))
    return clip, context


def _load(clip: nn.Module, state: dict, source: str) -> None:
    if not any(name.startswith(('token_embedding', 'text.')) for name in state):
        raise MilanError(f'{source} holds no text tower, only an image tower; give the whole CLIP')
    load_strictly(clip, state, f'{source} does not fit its description',
                  'Give the folder or the MODEL name that these weights belong to')


@torch.no_grad()
def embed_classes(tower: TextTower, classes: Sequence[str], names: Sequence[str],
                  prompts: Sequence[str]) -> Texts:
    """The direction of each class: the mean over prompts of unit directions (CLIP, Sec. 3.1.4).

    Args:
        tower: of :func:`load_text_tower`.
        classes: names of the class folders.
        names: what to call each in a prompt.
        prompts: templates with ``{}`` where the name goes; see :func:`read_prompts`.
    """
    rows = []
    for name in names:
        tokens = tower.tokenize([prompt.replace('{}', name) for prompt in prompts])
        features = F.normalize(tower.model.encode_text(tokens).float(), dim=-1)
        rows.append(F.normalize(features.mean(dim=0), dim=0))
    directions = torch.stack(rows)
    same = (directions @ directions.T > 1 - 1e-6).sum().item() - len(rows)
    if same:
        print_log(f'{same // 2} pairs of classes have the same text, and cannot be told apart: do '
                  'the prompts hold {}, and are the names within the text tower\'s context?',
                  logger='current', level=30)
    return Texts(tuple(classes), tuple(prompts), directions, tower.source)


def read_prompts(given: Sequence[str]) -> list[str]:
    """Templates as the user gave them, or the lines of a file.

    Raises:
        MilanError: if a template has no ``{}``.
    """
    prompts: list[str] = []
    for one in given:
        path = Path(one).expanduser()
        lines = path.read_text(encoding='utf-8').splitlines() if (
            '{}' not in one and path.is_file()) else [one]
        prompts += [line.strip() for line in lines if line.strip()]
    bad = [prompt for prompt in prompts if '{}' not in prompt]
    if bad or not prompts:
        raise MilanError(f'--prompts: {bad[0] if bad else "nothing"!r} has no {{}} where the name '
                         "of a class goes; expected such as 'a photo of a {}', or a file with one "
                         'of these on each line')
    return prompts


def read_names(classes: Sequence[str], path: str | Path | None) -> list[str]:
    """What to call each class in a prompt: what a JSON file says, else the folder's words.

    Args:
        classes: names of the class folders.
        path: of ``{"folder": "name", ...}``, such as ImageNet's n01440764 being a tench.

    Raises:
        MilanError: if the file is none of that, or lacks a class.
    """
    if path is None:
        return [name.replace('_', ' ') for name in classes]
    try:
        known = json.loads(Path(path).read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise MilanError(f'--names: {path} is no readable JSON ({first_line(error)}); expected '
                         '{"folder": "name", ...}') from error
    missing = [name for name in classes if not isinstance(known, dict)
               or not isinstance(known.get(name), str)]
    if missing:
        raise MilanError(f'--names: {path} names no class {missing[0]!r}; expected '
                         f'{{"{missing[0]}": "name in a prompt", ...}}')
    return [known[name] for name in classes]


def save_texts(texts: Texts, path: str | Path) -> None:
    """Writes directions as safetensors, so that no text tower is needed again."""
    metadata = dict(classes=json.dumps(texts.classes), prompts=json.dumps(texts.prompts),
                    source=texts.source)
    write_atomically(_check_suffix(path, '--save-text'), lambda part: save_file(
        dict(directions=texts.directions.contiguous()), part, metadata))


def read_texts(path: str | Path, classes: Sequence[str]) -> Texts:
    """Reads what :func:`save_texts` wrote, in the order of ``classes``.

    Raises:
        MilanError: if the file is another one, or lacks a class.
    """
    path = Path(_check_suffix(path, '--text')).expanduser()
    directions = read_checkpoint(path).get('directions')
    with safe_open(str(path), 'pt') as file:
        told: Any = file.metadata() or {}
    if directions is None or not {'classes', 'prompts', 'source'} <= set(told):
        raise MilanError(f'--text: {path} holds no texts; expected a file of --save-text')
    known = {name: i for i, name in enumerate(json.loads(told['classes']))}
    missing = [name for name in classes if name not in known]
    if missing:
        raise MilanError(f'--text: {path} lacks {len(missing)} classes of the data, such as '
                         f'{missing[0]!r}; write it anew with --save-text')
    return Texts(tuple(classes), tuple(json.loads(told['prompts'])),
                 directions[[known[name] for name in classes]], told['source'])


def _check_suffix(path: str | Path, option: str) -> str | Path:
    if Path(path).suffix != '.safetensors':
        raise MilanError(f'{option} takes a .safetensors file, got {path}')
    return path
