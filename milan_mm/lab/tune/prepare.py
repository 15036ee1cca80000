# SPDX-License-Identifier: Apache-2.0
"""From what the user asked to what is run; all that can be refused is refused here."""
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ...architectures import ARCHITECTURES, IMAGENET_CROP_RATIO
from ...checkpoints.zoo import located
from ...config.options import merge_options
from ...config.read import read_config
from ...errors import MilanError
from ...inference.device import check_device
from ...inference.teachers import clip_from, split_spec
from ...models.targets.levels import blocks_of
from ...structures import pair
from .choices import DEFAULT, Choice, make_choices
from .config_file import nested
from .images import split_images
from .measure import How, Judge
from .run import Asked, Tuner

OWN, CONTINUED = (f'milan_mm::milan/own_images{part}.py' for part in ('', '_continue'))
_LEVELS = 5  # of MaskAlign's authors


def prepare(data_root: str, labels: str | None, hours: float, work: Path, *,
            config: str | None = None, teacher: str | None = None, init_from: str | None = None,
            feature: str = 'cls', workers: int | None = None, seed: int = 0,
            device: str | None = None, only: Sequence[str] | None = None,
            options: dict[str, Any] | None = None, trust: bool = False,
            log: Callable[[str], None] = print) -> Tuner:
    """The runs to come.

    Args:
        data_root: images to train on.
        labels: folder of labelled images, or None.
        hours: for all runs.
        work: folder for all.
        config: the default; None for the one of own images.
        teacher: its spec; None for the config's.
        init_from: weights to try as a start.
        feature: 'cls' or 'pooled', that is measured.
        workers: processes that read images; None for the config's.
        seed: the first.
        device: that features are computed on.
        only: names of the choices to try beside the default; None for all.
        options: other changes of the config, dotted keys to values.
        trust: read pickles of more than tensors among ``init_from``.
        log: receives lines.

    Raises:
        MilanError: for what is the user's to mend.
    """
    try:
        init_from = str(located(init_from).resolve()) if init_from else None
    except MilanError as error:
        raise MilanError(f'--init-from: {error}') from error
    split = split_images(data_root, labels)
    name = config or OWN
    cfg, changes = _read(name, teacher, options, len(split.train))
    target, backbone = cfg.model.target_generator, cfg.model.backbone
    choices = _chosen(make_choices(cfg, bool(labels), _levels(cfg, log), init_from), only)
    size, patch = pair(backbone.get('img_size', 224)), backbone.get('patch_size', 16)
    how = How(feature, workers=2 if workers is None else workers, device=str(check_device(device)))
    judge = Judge(split, work / 'images', how, (_spec(target), size, patch, _crop_ratio(cfg)))
    asked = Asked(name, config or CONTINUED, nested(changes), hours, seed,
                  cfg.train_cfg.max_epochs, workers, trust)
    return Tuner(asked, cfg, choices, split, judge, work, log)


def _read(name: str, teacher: str | None, options: dict[str, Any] | None,
          images: int) -> tuple[Config, dict[str, Any]]:
    """The default, and what of its file is changed, by dotted keys."""
    changes = dict(options or {})
    if teacher:
        model, weights = split_spec(teacher)
        weights = str(Path(weights).resolve()) if os.path.exists(weights) else weights
        changes.update({'model.target_generator.model': model,
                        'model.target_generator.pretrained': weights})
    cfg = read_config(name)
    merge_options(cfg, changes)
    # As milan pretrain has it: a batch that the images fill, and no more of them an update.
    loader, wrapper = cfg.train_dataloader, cfg.optim_wrapper
    batch, updates = loader.batch_size, wrapper.get('accumulative_counts', 1)
    if batch * updates > images:
        batch = min(batch, images)
        fitting = {'train_dataloader.batch_size': batch,
                   'optim_wrapper.accumulative_counts': max(1, min(updates, images // batch))}
        merge_options(cfg, fitting)
        changes.update(fitting)
    return cfg, changes


def _levels(cfg: Config, log: Callable[[str], None]) -> int | None:
    """Blocks of the teacher that MaskAlign can follow; None, said to the log, without any."""
    try:
        tower = clip_from(_spec(cfg.model.get('target_generator') or {})).tower
        return min(_LEVELS, len(blocks_of(tower)), _depth(cfg.model.backbone))
    except MilanError as error:
        if 'its levels are not known' not in str(error):
            raise
        log(f'MaskAlign is left out: {error}')
        return None


def _chosen(choices: list[Choice], only: Sequence[str] | None) -> list[Choice]:
    unknown = sorted(set(only or ()) - {one.name for one in choices})
    if unknown:
        raise MilanError(f'--only: there is no choice {unknown[0]}; there are '
                         f'{", ".join(one.name for one in choices[1:])}')
    return [one for one in choices if not only or one.name in (DEFAULT, *only)]


def _spec(target: dict[str, Any]) -> str:
    model, weights = target.get('model'), target.get('pretrained')
    if not weights:
        raise MilanError('the config names no teacher; give --teacher SPEC')
    return f'{model}:{weights}' if model else str(weights)


def _crop_ratio(cfg: Config) -> float:
    """Of the central crop that the students are evaluated with, for the teacher too."""
    stated = [hook.get('crop_ratio') for hook in cfg.get('default_hooks', {}).values()
              if hook and str(hook.get('type')).endswith('DescribeEncoderHook')]
    return next((float(one) for one in stated if one is not None), IMAGENET_CROP_RATIO)


def _depth(backbone: dict[str, Any]) -> int:
    arch = backbone['arch']
    return (ARCHITECTURES[arch] if isinstance(arch, str) else arch)['num_layers']
