# SPDX-License-Identifier: Apache-2.0
"""Images per update and the learning rate that goes with them: computed here, nowhere else."""
from typing import NamedTuple

from mmengine.config import Config

from ..errors import MilanError


class BatchPlan(NamedTuple):
    """How many images make one update.

    Attributes:
        per_process: batch size of one process (one GPU).
        processes: number of processes.
        accumulation: batches whose gradients are summed before an update.
        recipe: the images per update that the config's learning rate is meant for, if it says.
        lr: the config's learning rate.
    """
    per_process: int
    processes: int
    accumulation: int
    recipe: int | None
    lr: float

    @property
    def effective(self) -> int:
        """Images per update."""
        return self.per_process * self.processes * self.accumulation

    @property
    def scaled_lr(self) -> float:
        """The learning rate by the linear rule of the recipe: lr x effective / recipe."""
        return self.lr * self.effective / self.recipe if self.recipe else self.lr


def plan_batch(cfg: Config, processes: int) -> BatchPlan:
    """Reads the plan off a config.

    Args:
        cfg: with ``train_dataloader``, ``optim_wrapper`` and ``auto_scale_lr``.
        processes: as many as take part in training.
    """
    recipe = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    return BatchPlan(
        per_process=cfg.train_dataloader.batch_size,
        processes=processes,
        accumulation=cfg.optim_wrapper.get('accumulative_counts', 1),
        recipe=recipe,
        lr=float(cfg.optim_wrapper.optimizer.lr))


def apply_plan(cfg: Config, plan: BatchPlan) -> str:
    """Sets the learning rate of the run and says how it came about.

    It is scaled where ``cfg.auto_scale_lr.enable`` asks for it; mmengine's own scaling, which
    does not count accumulation, is switched off.

    Args:
        cfg: changed in place.
        plan: from :func:`plan_batch`.

    Returns:
        A sentence for the log.

    Raises:
        MilanError: if scaling is asked for and the config does not say what for.
    """
    scale = (cfg.get('auto_scale_lr') or {}).get('enable', False)
    if scale and not plan.recipe:
        raise MilanError('--auto-scale-lr was given, but the config does not say which batch its '
                         'learning rate is for; set auto_scale_lr.base_batch_size')
    words = (f'batch: {plan.per_process} images x {plan.processes} processes x '
             f'{plan.accumulation} accumulated = {plan.effective} per update; ')
    lr = plan.scaled_lr if scale else plan.lr
    if plan.recipe is None or plan.effective == plan.recipe:
        words += f'learning rate {lr:.4g}, as in the recipe'
    elif scale:
        words += (f'the recipe is {plan.recipe} at {plan.lr:.4g}, so the learning rate is scaled '
                  f'to {lr:.4g}')
    else:
        words += (f'NOT the recipe\'s {plan.recipe}; the learning rate stays {lr:.4g} '
                  f'(--auto-scale-lr would make it {plan.scaled_lr:.4g})')
    cfg.optim_wrapper.optimizer.lr = lr
    if cfg.get('auto_scale_lr'):
        cfg.auto_scale_lr.enable = False
    return words
