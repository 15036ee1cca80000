# SPDX-License-Identifier: Apache-2.0
"""Another length of training: every scheduler's begin, end and milestones move in proportion."""
from mmengine.config import Config

from ..errors import MilanError


def set_length(cfg: Config, epochs: int | None = None, iters: int | None = None) -> None:
    """Trains for so many epochs or iterations instead of the config's.

    What a scheduler counts in the other unit (a warm-up of 250 iterations in a training counted in
    epochs) stays as it is.

    Args:
        cfg: changed in place.
        epochs: for configs that count epochs.
        iters: for configs that count iterations.

    Raises:
        MilanError: if the config counts in the other unit, or the length is not positive.
    """
    by_epoch = epochs is not None
    unit, length = ('max_epochs', epochs) if by_epoch else ('max_iters', iters)
    option, other = ('--epochs', '--iters') if by_epoch else ('--iters', '--epochs')
    if length is None or length < 1:
        raise MilanError(f'{option} must be at least 1, got {length}')
    old = cfg.train_cfg.get(unit)
    if not old:
        raise MilanError(f'this config does not count in {option.lstrip("-")}; use {other} N')
    cfg.train_cfg[unit] = length
    if cfg.train_cfg.get('val_interval'):
        cfg.train_cfg.val_interval = min(cfg.train_cfg.val_interval, length)
    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, dict):  # mmengine takes a single one without a list
        schedulers = [schedulers]
    for scheduler in schedulers:
        if bool(scheduler.get('by_epoch', True)) == by_epoch:
            _stretch(scheduler, length / old, length)
    cfg.param_scheduler = [s for s in schedulers if s.get('end', length) > s.get('begin', 0)]


def _stretch(scheduler: dict, factor: float, length: int) -> None:
    for key in ('begin', 'end'):
        if key in scheduler:
            scheduler[key] = round(scheduler[key] * factor)
    if 'T_max' in scheduler:
        scheduler['T_max'] = scheduler.get('end', length) - scheduler.get('begin', 0)
    if 'milestones' in scheduler:
        scheduler['milestones'] = [max(1, round(m * factor)) for m in scheduler['milestones']]
