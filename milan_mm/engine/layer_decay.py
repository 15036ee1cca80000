# SPDX-License-Identifier: Apache-2.0
"""Smaller learning rates for earlier blocks: one constructor for all three tasks."""
from typing import Any, NamedTuple

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from ..errors import MilanError
from ..registry import OPTIM_WRAPPER_CONSTRUCTORS

_OPTIONS = ('layer_decay_rate', 'custom_keys')
# Vectors by nature, though stored as (1, 1, D), (1, N, D) or (2R - 1, D).
_NEVER_DECAYED = ('cls_token', 'register_tokens', 'pos_embed', 'mask_token', 'rel_pos_h',
                  'rel_pos_w')


class _Rule(NamedTuple):
    """What the parameters of one group share; equal rules make one group."""
    layer_id: int
    lr_scale: float
    weight_decay: float
    extras: tuple[tuple[str, Any], ...]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Layer-wise decay of the learning rate, for any model whose ``backbone`` knows its depths.

    With L blocks, the learning rate of depth d is ``lr * rate ** (L + 1 - d)``: depth 0 is patch
    map, positions and CLS token, block i (from 0) is depth i + 1, and the rest (final norms, neck,
    heads) is depth L + 1, at the full rate. It is the rule of ELECTRA (arXiv 2003.10555) as
    BEiT (arXiv 2106.08254) and MAE (arXiv 2111.06377, table 9) count layers, which MILAN keeps.

    Weight decay is 0 for parameters of one dimension (biases, norms) and for CLS and mask tokens,
    absolute and relative positions.

    Each optimizer group has, beside ``lr`` and ``weight_decay``, its ``lr_scale``, ``layer_id``
    and the ``names`` of its parameters. mmengine's schedulers multiply each group's own first
    learning rate, so the ratios stay. An absolute ``eta_min`` would end all groups at the same
    value: configs say ``eta_min_ratio``.

    Args:
        optim_wrapper_cfg: its ``optimizer`` states ``lr`` and ``weight_decay``.
        paramwise_cfg: ``layer_decay_rate`` in (0, 1], 1 for no decay. Optional: ``custom_keys``,
            a dict from a part of a parameter's name (the longest that fits is taken) to
            ``lr_mult``, on top of the layer's scale; ``decay_mult``, of the optimizer's weight
            decay, in place of the rule above; other entries go into the group as they are.

    Raises:
        MilanError: if the rate is missing or out of range, the optimizer does not state its
            values, an option is unknown, or the model has no backbone that knows its depths.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        unknown = sorted(set(self.paramwise_cfg) - set(_OPTIONS))
        if unknown:
            raise MilanError(f'paramwise_cfg has {", ".join(unknown)}, which the layer-wise decay '
                             f'does not know; it takes {" and ".join(_OPTIONS)}. Biases and norms '
                             'have no weight decay anyway')
        rate = self.paramwise_cfg.get('layer_decay_rate')
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise MilanError(f'paramwise_cfg.layer_decay_rate must be in (0, 1], got {rate!r}; '
                             'the papers take .65 (ViT-B) and .75 (ViT-L), 1 is no decay')
        if self.base_lr is None or self.base_wd is None:
            raise MilanError('the layer-wise decay needs optim_wrapper.optimizer to state lr and '
                             f'weight_decay, got lr={self.base_lr}, weight_decay={self.base_wd}')
        self.rate = float(rate)

    def add_params(self,
                   params: list[dict],
                   module: nn.Module,
                   prefix: str = '') -> None:
        """Appends one group for each pair of layer and weight decay.

        Args:
            params: list of groups, changed in place.
            module: the whole model, out of its wrapper.
            prefix: of parameter names; '' for a whole model.
        """
        backbone = getattr(module, 'backbone', None)
        if not hasattr(backbone, 'get_layer_depth'):
            raise MilanError(
                'the layer-wise decay needs model.backbone.get_layer_depth; the backbone of '
                f'{type(module).__name__} is a {type(backbone).__name__}, which has none. Take a '
                'ViT of milan_mm or mmpretrain, or leave optim_wrapper.constructor out')
        groups: dict[_Rule, dict] = {}
        for name, parameter in module.named_parameters():  # shared ones come once
            if not parameter.requires_grad:
                continue
            rule = self.rule_of(prefix + name, parameter.ndim, backbone)
            group = groups.setdefault(rule, dict(params=[], names=[]))
            group['params'].append(parameter)
            group['names'].append(prefix + name)
        for rule, group in sorted(groups.items(), key=lambda item: item[0][:3]):
            params.append(dict(
                group, lr=self.base_lr * rule.lr_scale, weight_decay=rule.weight_decay,
                lr_scale=rule.lr_scale, layer_id=rule.layer_id, **dict(rule.extras)))
        frozen = [p.numel() for p in module.parameters() if not p.requires_grad]
        print_log(table_of(params) + f'\nfrozen: {len(frozen)} tensors, {sum(frozen):,} numbers',
                  logger='current')

    def rule_of(self, name: str, ndim: int, backbone: nn.Module) -> _Rule:
        """The rule for one parameter.

        Args:
            name: in the whole model.
            ndim: its number of dimensions.
            backbone: the model's.
        """
        depth, depths = backbone.get_layer_depth(name, 'backbone.')  # of others: the last
        custom = dict(self._custom_options(name))
        scale = self.rate**(depths - 1 - depth) * custom.pop('lr_mult', 1.)
        spared = ndim <= 1 or name.rpartition('.')[2] in _NEVER_DECAYED
        decay = self.base_wd * custom.pop('decay_mult', 0. if spared else 1.)
        return _Rule(depth, scale, decay, tuple(
            (key, tuple(value) if isinstance(value, list) else value)
            for key, value in sorted(custom.items())))

    def _custom_options(self, name: str) -> dict:
        keys = self.paramwise_cfg.get('custom_keys', {})
        fitting = sorted((key for key in keys if key in name), key=lambda k: (-len(k), k))
        return keys[fitting[0]] if fitting else {}


def table_of(groups: list[dict]) -> str:
    """The groups as lines of text, one a group.

    Args:
        groups: with ``params``, ``layer_id``, ``lr_scale``, ``lr`` and ``weight_decay``.
    """
    lines = ['parameter groups:', f'{"layer":>5} {"scale":>10} {"lr":>10} {"decay":>8} '
             f'{"tensors":>8} {"numbers":>12}']
    for group in groups:
        lines.append(f'{group["layer_id"]:5d} {group["lr_scale"]:10.3e} {group["lr"]:10.3e} '
                     f'{group["weight_decay"]:8.3g} {len(group["params"]):8d} '
                     f'{sum(p.numel() for p in group["params"]):12,d}')
    return '\n'.join(lines)
