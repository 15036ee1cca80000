# SPDX-License-Identifier: Apache-2.0
"""Where a teacher is: what a user gives for one, and what a config says."""
from pathlib import Path

from mmengine.config import ConfigDict

from ..errors import MilanError
from ..models import CLIPTargetGenerator
from .checkpoint import Checkpoint


def split_spec(spec: str) -> tuple[str | None, str]:
    """Takes apart a file, a folder, a name of :func:`list_models`, or ``MODEL:TAG_OR_FILE``.

    MODEL and TAG are in ``open_clip``'s names.

    Returns:
        The model's name, None for a path; and the path or tag.
    """
    model, colon, pretrained = spec.partition(':')
    if Path(spec).expanduser().exists() or not colon:
        return None, spec
    return model, pretrained


def clip_from(spec: str, quickgelu: bool | None = None) -> CLIPTargetGenerator:
    """A CLIP teacher from what :func:`split_spec` takes apart."""
    return CLIPTargetGenerator(*split_spec(spec), quickgelu)


def teacher_of(checkpoint: Checkpoint) -> str:
    """Where the config of a training finds its CLIP: a path, or ``MODEL:TAG_OR_FILE``.

    Raises:
        MilanError: if it does not say.
    """
    generator = (checkpoint.config.get('model') or {}).get('target_generator') or {}
    model, pretrained = generator.get('model'), generator.get('pretrained')
    if not pretrained:
        raise MilanError(f'{checkpoint.config_name} does not say which CLIP taught it; name one '
                         'with a text tower: --text-tower DIR or MODEL:TAG')
    return f'{model}:{pretrained}' if model else str(pretrained)


def set_teacher(model: ConfigDict, spec: str) -> None:
    """Points the config of a model at another teacher, in place.

    It takes the place of the one that the targets come from; where targets are pixels, it gives
    the importance.

    Args:
        model: the config.
        spec: see :func:`split_spec`.

    Raises:
        MilanError: if the model's teacher is none that comes from one file.
    """
    name, pretrained = split_spec(spec)
    generator = model.get('target_generator') or {}
    kind = str(generator.get('type', '')).rpartition('.')[2]
    if kind == 'PixelTargetGenerator':
        generator = model.get('importance_generator') or dict(type='milan_mm.CLIPTargetGenerator')
        kind = str(generator.get('type', '')).rpartition('.')[2]
        model['importance_generator'] = generator
        generator = model['importance_generator']  # a ConfigDict keeps a copy
    if 'checkpoint' in generator:
        generator['checkpoint'] = spec
    elif kind == 'CLIPTargetGenerator' or 'pretrained' in generator or 'model' in generator:
        generator['pretrained'] = pretrained
        if name:
            generator['model'] = name
    else:
        raise MilanError(f'--teacher {spec} cannot be set: this model learned from '
                         f'{kind or "no teacher"}, not from one file. Name its parts with '
                         '--cfg-options model.target_generator.<key>=...')
