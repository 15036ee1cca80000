# SPDX-License-Identifier: Apache-2.0
"""Folders of weights as Hugging Face has them: one file, or several with an index."""
import json
from pathlib import Path
from typing import Any

from ..errors import MilanError
from .io import read_checkpoint, state_of
from .jax import describe_jax
from .spec import describe_by_folder, describe_by_open_clip
from .timm_folders import describe_by_timm

_WEIGHTS = ('model.safetensors', 'pytorch_model.bin')
_OF_OPEN_CLIP = ('open_clip_model.safetensors', 'open_clip_pytorch_model.bin',
                 'open_clip_model.bin')


def weights_files(folder: Path) -> list[Path]:
    """The file of weights in a folder, or those that its index names; empty if there are none.

    Raises:
        MilanError: if an index is no JSON, or names a file that is not beside it.
    """
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f'{name}.index.json'
        if index.is_file():
            try:
                told = json.loads(index.read_text(encoding='utf-8'))
                named = sorted(set(told['weight_map'].values()))
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise MilanError(f'{index} is no index of weights ({error})') from error
            absent = [n for n in named if Path(n).name != n or not (folder / n).is_file()]
            if absent:
                raise MilanError(f'{index} names {absent[0]}, which is not beside it: download all '
                                 'files of the folder')
            return [folder / n for n in named]
    return []


def read_weights_of(folder: Path, trust: bool = False) -> dict[str, Any]:
    """All the weights in such a folder; see :func:`read_checkpoint`."""
    content: dict[str, Any] = {}
    for path in weights_files(folder):
        content.update(read_checkpoint(path, trust))
    return content


def read_folder_or_file(path: Path, trust: bool) -> tuple[dict[str, Any], dict | None]:
    """What was saved, and what is said of the ViT beside it, in a folder's JSON.

    Raises:
        MilanError: if it cannot be read, or is a folder of another kind.
    """
    if not path.is_dir():
        content = read_checkpoint(path, trust)
        return content, describe_jax(content) if path.suffix == '.npz' else None
    if (path / 'open_clip_config.json').is_file():
        return _read_open_clip(path, trust)
    if not (path / 'config.json').is_file() or not weights_files(path):
        gather = (': weights spread over processes by torch.distributed.checkpoint. Gather them '
                  'first: python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIR '
                  'FILE') if any(path.glob('*.distcp')) else (
            ' of ViT weights: expected config.json with model.safetensors (Hugging Face), or '
            'open_clip_config.json with open_clip_model.safetensors, found '
            f'{sorted(p.name for p in path.iterdir())[:6] or "nothing"}. Of a run of this package '
            'give the checkpoint, not the folder')
        raise MilanError(f'{path} is not a folder{gather}')
    try:
        config, pixels = (
            json.loads((path / name).read_text(encoding='utf-8')) if (path / name).is_file() else {}
            for name in ('config.json', 'preprocessor_config.json'))
    except ValueError as error:
        raise MilanError(f'{path}: its config.json or preprocessor_config.json is no JSON '
                         f'({error})') from error
    weights = read_weights_of(path, trust)
    if isinstance(config.get('architecture'), str):
        return weights, describe_by_timm(config, state_of(weights), str(path))
    return weights, describe_by_folder(config, pixels, str(path))


def _read_open_clip(path: Path, trust: bool) -> tuple[dict[str, Any], dict]:
    """The image tower of a CLIP in a folder of open_clip."""
    files = [path / name for name in _OF_OPEN_CLIP if (path / name).is_file()]
    if not files:
        raise MilanError(f'{path} has open_clip_config.json and no {_OF_OPEN_CLIP[0]} beside it: '
                         'download all files of the folder')
    try:
        config = json.loads((path / 'open_clip_config.json').read_text(encoding='utf-8'))
    except ValueError as error:
        raise MilanError(f'{path}/open_clip_config.json is no JSON ({error})') from error
    return read_checkpoint(files[0], trust), describe_by_open_clip(config, str(path))
