# SPDX-License-Identifier: Apache-2.0
"""What is examined: a pretraining with its teacher, or an encoder alone."""
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor

from ..checkpoints.io import read_checkpoint
from ..checkpoints.saved_config import saved_config
from ..config.read import merge_options, read_config
from ..errors import MilanError
from ..models import CLIPTargetGenerator, MaskedVisionTransformer, TargetGenerator
from .encoders import get_model
from .pretraining import load_pretraining


class Subject(NamedTuple):
    """A trained encoder and what is known of its training.

    Attributes:
        source: the checkpoint.
        backbone: the encoder.
        normalise: pixels (B, 3, H, W) uint8 to the encoder's input, on its device.
        model: the whole algorithm, or None of an encoder alone.
        reference: the teacher that layers are compared with, or None.
        reference_name: what to call it.
        notes: what the user should know of how this was found.
    """
    source: str
    backbone: MaskedVisionTransformer
    normalise: Callable[[Tensor], Tensor]
    model: Any | None
    reference: TargetGenerator | None
    reference_name: str
    notes: list[str]


def load_subject(checkpoint: str | Path,
                 config: str | None = None,
                 teacher: str | None = None,
                 options: dict | None = None,
                 device: str | torch.device = 'cpu') -> Subject:
    """Reads a checkpoint; nothing in it is executed.

    Args:
        checkpoint: of a pretraining, with everything; or any encoder that
            :func:`milan_mm.get_model` reads, for what needs no decoder.
        config: of the training; None takes the one saved in the checkpoint.
        teacher: file or folder, or ``MODEL:TAG`` in ``open_clip``'s names: where the training's
            teacher is now; of a training on pixels, or of an encoder alone, a CLIP that its
            layers are compared with.
        options: ``--cfg-options``, changes of the config.
        device: to compute on.

    Raises:
        MilanError: if the checkpoint does not hold what the config describes, or the teacher is
            not found.
    """
    if not is_pretraining(checkpoint, config):
        if config or options:
            raise MilanError(f'{config or checkpoint} is not the config of a pretraining: its '
                             'model has no target_generator. Leave --config and --cfg-options out '
                             'to look at the encoder alone')
        return _encoder_alone(checkpoint, teacher, device)
    model = load_pretraining(checkpoint, config, teacher, options)
    model.to(device)
    reference, name = model.target_generator, 'teacher'
    if not reference.measures_importance:
        second = getattr(model, 'importance_generator', None)
        reference, name = (reference, 'target') if second is None else (second, 'CLIP')

    def normalise(pixels: Tensor) -> Tensor:
        return model.data_preprocessor(dict(inputs=pixels))['inputs'].to(device)

    return Subject(str(checkpoint), model.backbone, normalise, model, reference, name, [])


def is_pretraining(checkpoint: str | Path, config: str | None) -> bool:
    """Whether a training with a teacher or target wrote it, as far as config or file say."""
    cfg = config_of(checkpoint, config)
    return cfg is not None and 'target_generator' in (cfg.get('model') or {})


def config_of(checkpoint: str | Path, config: str | None) -> Config | None:
    """The config that is given, else the one in the checkpoint, else None."""
    if config:
        return read_config(config)
    content = read_checkpoint(checkpoint) if Path(checkpoint).expanduser().is_file() else {}
    meta = content.get('meta')
    return saved_config(content) if isinstance(meta, dict) and meta.get('cfg') else None


def teacher_of(checkpoint: str | Path, config: str | None = None,
               options: dict | None = None) -> str:
    """Where the config of a training finds its CLIP: a path, or ``MODEL:TAG_OR_FILE``.

    Raises:
        MilanError: if it does not say.
    """
    cfg = config_of(checkpoint, config)
    if cfg is not None:
        merge_options(cfg, options)
    generator = (cfg.get('model') or {}).get('target_generator') or {} if cfg else {}
    model, pretrained = generator.get('model'), generator.get('pretrained')
    if not pretrained:
        raise MilanError(f'the config of {checkpoint} does not say which CLIP taught it; name one '
                         'with a text tower: --text-tower DIR or MODEL:TAG')
    return f'{model}:{pretrained}' if model else str(pretrained)


def clip_from(spec: str) -> CLIPTargetGenerator:
    """A CLIP teacher from a file or folder, or ``MODEL:TAG_OR_FILE``."""
    return CLIPTargetGenerator(*split_spec(spec))


def split_spec(spec: str) -> tuple:
    """(model or None, tag or path) of what a user gives for a CLIP."""
    model, colon, pretrained = spec.partition(':')
    if Path(spec).expanduser().exists() or not colon:
        return None, spec
    return model, pretrained


def _encoder_alone(checkpoint: str | Path, teacher: str | None,
                   device: str | torch.device) -> Subject:
    extractor = get_model(checkpoint, crop_ratio=1).to(device)
    reference = None
    if teacher:
        reference = clip_from(teacher)
        reference.match_student(extractor.backbone.grid_size,
                                extractor.pixel_mean.flatten().tolist(),
                                extractor.pixel_std.flatten().tolist())
        reference.to(device)
    notes = ['The file does not say how it was pretrained: the encoder alone is looked at.']
    return Subject(str(checkpoint), extractor.backbone, extractor.normalise, None, reference,
                   'CLIP' if teacher else '', notes)
