# SPDX-License-Identifier: Apache-2.0
"""What is examined: a pretraining with its teacher, or an encoder alone."""
import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...architectures import ARCHITECTURES
from ...errors import MilanError
from ...inference.checkpoint import Checkpoint
from ...inference.encoders import FeatureExtractor, get_model
from ...inference.pretraining import build_pretraining, inputs_of
from ...inference.teachers import clip_from
from ...models import MILAN, MaskedVisionTransformer, TargetGenerator


class Subject(NamedTuple):
    """A trained encoder and what is known of its training.

    Attributes:
        source: the checkpoint.
        backbone: the encoder.
        normalise: pixels (B, 3, H, W) uint8 to the encoder's input, on its device.
        model: the whole algorithm; None for an encoder alone.
        reference: the teacher that layers are compared with, or None.
        reference_name: what to call it.
        notes: what the user should know of how this was found.
    """
    source: str
    backbone: MaskedVisionTransformer
    normalise: Callable[[Tensor], Tensor]
    model: MILAN | None
    reference: TargetGenerator | None
    reference_name: str
    notes: list[str]


def load_subject(checkpoint: str | Path,
                 config: str | None = None,
                 teacher: str | None = None,
                 options: dict | None = None,
                 device: str | torch.device = 'cpu',
                 trust: bool = False) -> Subject:
    """Reads a checkpoint; nothing in it is executed.

    Args:
        checkpoint: that of a pretraining, with everything; or any encoder that
            :func:`milan_mm.get_model` reads, for what needs no decoder.
        config: config of the training; None takes the one saved in the checkpoint.
        teacher: file or folder, or ``MODEL:TAG`` in ``open_clip``'s names: where the training's
            teacher is now; of a training on pixels, or of an encoder alone, a CLIP that its
            layers are compared with.
        options: changes of the config, as ``--cfg-options`` gives them.
        device: to compute on.
        trust: see :func:`read_checkpoint`.

    Raises:
        MilanError: if the checkpoint does not hold what the config describes, or the teacher is
            not found.
    """
    found = (None if str(checkpoint) in ARCHITECTURES
             else Checkpoint(checkpoint, config, options, trust))
    if found is None or not found.is_pretraining:
        if config or options:
            raise MilanError(f'{config or checkpoint} is not the config of a pretraining: its '
                             'model has no target_generator. Leave --config and --cfg-options out '
                             'to look at the encoder alone')
        encoder = get_model(found.vit() if found else checkpoint, crop_ratio=1)
        return _encoder_alone(str(checkpoint), encoder.to(device), teacher)
    model = build_pretraining(found, teacher)
    model.to(device)
    reference, name = model.target_generator, 'teacher'
    if not reference.measures_importance:
        second = model.importance_generator
        reference, name = (reference, 'target') if second is None else (second, 'CLIP')
    return Subject(str(checkpoint), model.backbone, functools.partial(inputs_of, model), model,
                   reference, name, [])


def _encoder_alone(source: str, extractor: FeatureExtractor, teacher: str | None) -> Subject:
    reference = None
    if teacher:
        reference = clip_from(teacher)
        reference.match_student(extractor.backbone.grid_size,
                                extractor.pixel_mean.flatten().tolist(),
                                extractor.pixel_std.flatten().tolist())
        reference.to(extractor.pixel_mean.device)
    notes = ['The file does not say how it was pretrained: the encoder alone is looked at.']
    return Subject(source, extractor.backbone, extractor.normalise, None, reference,
                   'CLIP' if teacher else '', notes)
