# SPDX-License-Identifier: Apache-2.0
"""From a pretraining's checkpoint to its model, the teacher and the decoder included."""
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import ConfigDict
from torch import Tensor

from ..errors import MilanError
from ..keyed_random import sample_key
from ..models import MILAN, EMATargetGenerator
from ..models.targets.ema import averaged
from ..registry import MODELS
from .checkpoint import Checkpoint
from .teachers import set_teacher

Path_ = str | Path


def load_pretraining(checkpoint: Path_,
                     config: Path_ | None = None,
                     teacher: Path_ | None = None,
                     options: dict | None = None,
                     trust: bool = False) -> MILAN:
    """The model of a pretraining, frozen and in eval mode, with exactly the checkpoint's weights.

    Args:
        checkpoint: what the training wrote; nothing in it is executed.
        config: config of the training; None takes the one in the checkpoint, see
            :func:`saved_config`.
        teacher: where the teacher is now, which no checkpoint holds: a file or folder, or
            ``MODEL:TAG``; see :func:`set_teacher`. None leaves what the config says.
        options: changes of the config, as ``--cfg-options`` gives them.
        trust: see :func:`read_checkpoint`.

    Raises:
        MilanError: if there is no config, no teacher, or the checkpoint does not hold this model,
            tensor by tensor; or if the model is no pretraining of this package.
    """
    return build_pretraining(Checkpoint(checkpoint, config, options, trust), teacher)


def build_pretraining(checkpoint: Checkpoint, teacher: Path_ | None = None) -> MILAN:
    """:func:`load_pretraining` of a checkpoint that was read already."""
    cfg = checkpoint.config
    if not isinstance(cfg.get('model'), dict):
        raise MilanError(f'{checkpoint.config_name} has no model. Give the config of a '
                         'pretraining, such as configs/milan/vitb_pretrain.py')
    model_cfg = copy.deepcopy(cfg.model)
    if teacher is not None:
        set_teacher(model_cfg, str(teacher))
    if cfg.get('data_preprocessor') is not None:  # as mmengine's Runner does
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = _build(model_cfg, checkpoint.config_name, teacher is not None)
    if not isinstance(model, MILAN):
        raise MilanError(f'{checkpoint.config_name} is of another model ({type(model).__name__}); '
                         'expected a pretraining of this package: MILAN, MAE or MaskAlign')
    checkpoint.load_into(model)
    _restore_averages(model, checkpoint.content.get('ema_teacher'), str(checkpoint.path))
    # mmpretrain's backbones do not return themselves from eval(), and so nor does this.
    model.requires_grad_(False)
    model.eval()
    return model


def inputs_of(model: MILAN, pixels: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) in uint8 as a training step gets them, on the model's device."""
    device = next(model.parameters()).device
    return model.data_preprocessor(dict(inputs=pixels))['inputs'].to(device)


def mask_keys(seed: int, numbers: Sequence[int], draw: int = 0) -> Tensor:
    """(B,) int64 keys for the masks of images of these numbers, the same for every viewer."""
    return torch.tensor([sample_key(seed, draw, number, 'look') for number in numbers])


def _restore_averages(model: MILAN, kept: list | None, checkpoint: str) -> None:
    """Teachers that are averages of the encoder are kept beside the model's weights."""
    parts = (part for teacher in model.teachers for part in teacher.modules())
    if not any(isinstance(part, EMATargetGenerator) for part in parts):
        return
    _, teachers = averaged(model)
    if not kept or len(kept) != len(teachers):
        raise MilanError(f'{checkpoint} keeps no average of the encoder, which was its teacher. '
                         'Give a checkpoint of the training as it was written')
    for teacher, state in zip(teachers, kept):
        teacher.follow(model.backbone, state)


def _build(cfg: ConfigDict, source: str, teacher_given: bool) -> Any:
    try:
        return MODELS.build(cfg)
    except MilanError as error:
        hint = '' if teacher_given else (
            '. If it is the teacher that is not there: --teacher says where it is now')
        raise MilanError(f'{source} cannot be built: {str(error).rstrip(".")}{hint}') from error
    except Exception as error:  # of a registry: an argument or a class that does not exist
        raise MilanError(f'{source} cannot be built ({type(error).__name__}: '
                         f'{str(error)[:300]}). Give the config that it was trained with'
                         ) from error
