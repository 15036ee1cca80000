# SPDX-License-Identifier: Apache-2.0
"""The choices that are tried, each as what it changes in the default config."""
import inspect
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from ...errors import MilanError
from ...registry import MODELS

DEFAULT = 'default'
#: Of a step whose encoder sees a quarter of the patches, what an encoder that saw all would add:
#: forward and backward against the teacher's forward pass. For a first guess; runs are measured.
_ENCODER = 3.


class Choice(NamedTuple):
    """Something to train with.

    Attributes:
        name: of its folders.
        title: for people.
        changes: of the config, as nested tables.
        visible: share of the patches that the encoder sees.
        init_from: weights that the encoder starts from, or None.
        taught: whether the teacher's features are its target.
    """
    name: str
    title: str
    changes: dict[str, Any]
    visible: float = 0.25
    init_from: str | None = None
    taught: bool = True

    @property
    def weight(self) -> float:
        """A guess of its seconds a step in units of the default's."""
        return (1 + _ENCODER * self.visible) / (1 + _ENCODER * 0.25)


def make_choices(cfg: Config, labelled: bool, levels: int | None,
                 init_from: str | None = None) -> list[Choice]:
    """The default and what is tried beside it.

    Args:
        cfg: the default, a MILAN.
        labelled: whether labels measure. Without them MAE is left out: how well it finds the
            teacher's neighbours is no measure of a method that has no teacher.
        levels: blocks of the teacher that MaskAlign follows; None leaves MaskAlign out.
        init_from: weights to start from, tried beside a fresh start.

    Raises:
        MilanError: if the config is not a MILAN with a semantic or random mask.
    """
    model = cfg.get('model') or {}
    kinds = [str(model.get(part, {}).get('type', '')).rpartition('.')[2]
             for part in ('mask_generator', 'target_generator')]
    if str(model.get('type', '')).rpartition('.')[2] != 'MILAN' or kinds not in (
            ['SemanticMaskGenerator', 'CLIPTargetGenerator'],
            ['RandomMaskGenerator', 'CLIPTargetGenerator']):
        raise MilanError('tune changes the masks and the algorithm of a MILAN with a CLIP teacher '
                         f'and semantic or random masks; this config has {model.get("type")} with '
                         f'{kinds[0]} and {kinds[1]}. Give another --config, or leave it out')
    found = [Choice(DEFAULT, 'the default', {}, _visible(cfg))]
    for kind in ('semantic', 'random'):
        for percent in (75, 60, 40):
            found.append(_masked(kind, percent))
    found += [_masked('semantic', 75, 2), _masked('semantic', 40, 2), _half_predicted('random', 75)]
    if levels:
        found += [_align(_masked('semantic', 75), levels), _align(_masked('random', 40), levels)]
    if labelled:
        found.append(Choice('mae', 'MAE, without the teacher', dict(model=_mae(cfg)), taught=False))
    if init_from:
        found += [one._replace(
            name=f'{one.name}_from_weights', title=f'{one.title}, from {Path(init_from).name}',
            init_from=init_from) for one in found
            if one.name in (DEFAULT, 'random_40', 'align_random_40')]
    same = [one for one in found[1:] if one.init_from is None and _equal(cfg, one)]
    return [one for one in found if one not in same]


def _visible(cfg: Config) -> float:
    return 1 - float(cfg.model.mask_generator.get('mask_ratio', 0.75))


def _masked(kind: str, percent: int, temperature: int = 1) -> Choice:
    generator: dict[str, Any] = dict(type=f'milan_mm.{kind.title()}MaskGenerator',
                                     mask_ratio=percent / 100)
    name, title = f'{kind}_{percent}', f'{kind} masks, {percent} %'
    if kind == 'semantic' and temperature != 1:
        generator['temperature'] = temperature
        name, title = f'{name}_t{temperature}', f'{title}, temperature {temperature}'
    return Choice(name, title, dict(model=dict(mask_generator=dict(generator, _delete_=True))),
                  1 - percent / 100)


def _half_predicted(kind: str, percent: int) -> Choice:
    """More of the loss is then on tokens that the encoder has computed (docs/evidence.md, 7)."""
    masked = _masked(kind, percent)
    generator = dict(masked.changes['model']['mask_generator'], predicted=0.5)
    return masked._replace(
        name=f'{masked.name}_half', title=f'{masked.title}, half of them predicted',
        changes=dict(model=dict(mask_generator=generator)))


def _align(masked: Choice, levels: int) -> Choice:
    """MaskAlign as in ``configs/mask_align``, with the masks of another choice."""
    model = dict(
        masked.changes['model'], type='milan_mm.MaskAlign',
        backbone=dict(init_cfg=dict(type='milan_mm.PretrainedViT', checkpoint=None)),
        target_generator=dict(type='milan_mm.CLIPLevelsTargetGenerator', levels=levels),
        neck=dict(_delete_=True, type='milan_mm.DynamicAlignment'),
        head=dict(_delete_=True, type='milan_mm.AlignmentHead',
                  loss=dict(type='milan_mm.SmoothL1AlignmentLoss')))
    decay = dict(custom_keys=dict(level_weights=dict(decay_mult=0.)))
    return masked._replace(
        name=f'align_{masked.name}', title=f'MaskAlign, {masked.title}',
        changes=dict(model=model, optim_wrapper=dict(paramwise_cfg=decay)))


def _mae(cfg: Config) -> dict[str, Any]:
    patch = cfg.model.backbone.get('patch_size', 16)
    return dict(
        target_generator=dict(_delete_=True, type='milan_mm.PixelTargetGenerator',
                              patch_size=patch, norm_pix=True),
        mask_generator=dict(_delete_=True, type='milan_mm.RandomMaskGenerator', mask_ratio=0.75),
        neck=dict(type='milan_mm.MAEDecoder'),
        head=dict(loss=dict(_delete_=True, type='milan_mm.MSEReconstructionLoss'),
                  tokens='masked'))


def _equal(cfg: Config, choice: Choice) -> bool:
    """Whether it asks for the masks that the default has."""
    masks = choice.changes['model']['mask_generator']
    if set(choice.changes['model']) != {'mask_generator'}:
        return False
    return _spelt_out(masks) == _spelt_out(cfg.model.mask_generator)


def _spelt_out(generator: dict[str, Any]) -> dict[str, Any]:
    """What it is built with, the defaults of its class among them."""
    parameters = inspect.signature(MODELS.get(generator['type'])).parameters
    return {'type': generator['type'].rpartition('.')[2],
            **{name: generator.get(name, one.default) for name, one in parameters.items()}}
