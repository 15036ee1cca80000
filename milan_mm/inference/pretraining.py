# SPDX-License-Identifier: Apache-2.0
"""From a training's checkpoint to its model, the teacher and the decoder included."""
from pathlib import Path

from mmengine.config import Config, ConfigDict
from torch import nn

from ..checkpoints.io import read_checkpoint, state_of
from ..checkpoints.saved_config import saved_config
from ..checkpoints.vit import mismatch
from ..config.read import merge_options, read_config
from ..errors import MilanError
from ..models import MILAN, EMATargetGenerator
from ..models.targets.ema import averaged
from ..registry import MODELS

Path_ = str | Path


def load_pretraining(checkpoint: Path_,
             config: Path_ | None = None,
             teacher: Path_ | None = None,
             options: dict | None = None,
             trust: bool = False) -> MILAN:
    """The model of a pretraining, frozen and in eval mode, with exactly the checkpoint's weights.

    Args:
        checkpoint: that the training wrote; nothing in it is executed.
        config: of the training; None takes the one in the checkpoint, see :func:`saved_config`.
        teacher: where the teacher is now, which no checkpoint holds: a file or folder, or
            ``MODEL:TAG``; see :func:`set_teacher`. None leaves what the config says.
        options: changes of the config, as of ``--cfg-options``.
        trust: see :func:`read_checkpoint`.

    Raises:
        MilanError: if there is no config, no teacher, or the checkpoint does not hold this model,
            tensor by tensor; or if the model is no pretraining of this package.
    """
    content = read_checkpoint(checkpoint, trust)
    cfg = read_config(config) if config else _own_config(content, checkpoint)
    merge_options(cfg, options)
    if not isinstance(cfg.get('model'), dict):
        raise MilanError(f'{config or checkpoint}: its config has no model. Give the config of a '
                         'pretraining, such as configs/milan/vitb_pretrain.py')
    if teacher is not None:
        set_teacher(cfg.model, str(teacher))
    if cfg.get('data_preprocessor') is not None:  # as mmengine's Runner does
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = _build(cfg, str(config or f'the config in {checkpoint}'), teacher is not None)
    state = state_of(content)
    if not isinstance(model, MILAN):
        raise MilanError(f'{config or checkpoint} is of another model ({type(model).__name__}); '
                         'expected a pretraining of this package: MILAN, MAE or MaskAlign')
    problem = mismatch(model.state_dict(), state)
    if problem:
        raise MilanError(f'{checkpoint} does not hold the model of {config or "its config"}: '
                         f'{problem}. Give the config that it was trained with')
    model.load_state_dict(state, strict=True)
    _restore_averages(model, content.get('ema_teacher'), str(checkpoint))
    # mmpretrain's backbones do not return themselves from eval(), and so nor does this.
    model.requires_grad_(False)
    model.eval()
    return model


def set_teacher(model: ConfigDict, spec: str) -> None:
    """Points the config of a model at another teacher, in place.

    It takes the place of the one that the targets come from; where targets are pixels, it gives
    the importance.

    Args:
        model: the config.
        spec: a file or folder, or ``MODEL:TAG_OR_FILE``.

    Raises:
        MilanError: if the model's teacher is none that comes from one file.
    """
    name, colon, pretrained = spec.partition(':')
    is_path = Path(spec).expanduser().exists() or not colon
    generator = model.get('target_generator') or {}
    kind = str(generator.get('type', '')).rpartition('.')[2]
    if kind == 'PixelTargetGenerator':
        generator = model.get('importance_generator') or dict(type='milan_mm.CLIPTargetGenerator')
        kind = str(generator.get('type', '')).rpartition('.')[2]
        model['importance_generator'] = generator
        generator = model['importance_generator']
    if 'checkpoint' in generator:
        generator['checkpoint'] = spec
    elif kind == 'CLIPTargetGenerator' or 'pretrained' in generator or 'model' in generator:
        generator['pretrained'] = spec if is_path else pretrained
        if not is_path:
            generator['model'] = name
    else:
        raise MilanError(f'--teacher {spec} cannot be set: this model learned from '
                         f'{kind or "no teacher"}, not from one file. Name its parts with '
                         '--cfg-options model.target_generator.<key>=...')


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


def _own_config(content: dict, checkpoint: Path_) -> Config:
    try:
        return saved_config(content)
    except MilanError as error:
        raise MilanError(str(error).replace('the checkpoint', str(checkpoint), 1)) from error


def _build(cfg: Config, source: str, teacher_given: bool) -> nn.Module:
    try:
        return MODELS.build(cfg.model)
    except MilanError as error:
        hint = '' if teacher_given else (
            '. If it is the teacher that is not there: --teacher says where it is now')
        raise MilanError(f'{source} cannot be built: {str(error).rstrip(".")}{hint}') from error
    except Exception as error:  # of a registry: an argument or a class that does not exist
        raise MilanError(f'{source} cannot be built ({type(error).__name__}: '
                         f'{str(error)[:300]}). Give the config that it was trained with'
                         ) from error
