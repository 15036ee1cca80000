# SPDX-License-Identifier: Apache-2.0
"""Opens the file of a :class:`CachedTargetGenerator`, and tells it which views come."""
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from ..errors import MilanError
from ..models.targets.cached import CachedTargetGenerator, TargetFile
from ..registry import HOOKS
from ..unwrapped import unwrapped

_KIND = 'CachedTargetGenerator'


@HOOKS.register_module()
class TargetCacheHook(Hook):
    """What a :class:`CachedTargetGenerator` needs of a training; a run that has one gets it.

    The log shows ``targets_read``, the share of the images whose targets were not computed.

    Raises:
        MilanError: before training, if images have no fixed number of views, the loss is compiled,
            or the disk has no room.
    """

    def __init__(self) -> None:
        self.asked = self.computed = 0

    def before_train(self, runner: Any) -> None:
        self.caches = cached(runner.model)
        dataset = runner.train_dataloader.dataset
        views = getattr(dataset, 'fixed_views', None)
        if not views:
            raise MilanError(f'{_KIND} needs images of which there are a fixed number of views: '
                             'set train_dataloader.dataset.fixed_views=2, or leave it out')
        if 'loss' in vars(unwrapped(runner.model)):
            raise MilanError(f'{_KIND} reads files in the midst of a step, which --compile cannot '
                             'trace: leave one of both out')
        wrapper = runner.optim_wrapper
        precision = f'{type(wrapper).__name__} {getattr(wrapper, "dtype", None)}'
        for cache in self.caches:
            folder = Path(cache.folder or Path(runner.work_dir) / 'targets').expanduser()
            parts = dict(cache.identity(), data=str(runner.cfg.train_dataloader.dataset),
                         seed=str(runner.seed), precision=precision)
            cache.file = TargetFile(folder, parts, len(dataset) * views, _shapes(cache, runner),
                                    cache.dtype)
            runner.logger.info(cache.file.news)

    def before_train_iter(self, runner: Any, batch_idx: int,
                          data_batch: dict | None = None) -> None:
        for cache in self.caches:
            if data_batch is not None:
                cache.expect(data_batch['view'], data_batch['inputs'])

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        asked = sum(cache.asked for cache in self.caches)
        computed = sum(cache.computed for cache in self.caches)
        share = (computed - self.computed) / max(asked - self.asked, 1)
        self.asked, self.computed = asked, computed
        runner.message_hub.update_scalar('train/targets_read', 1 - share)


def keep_targets(cfg: Config) -> None:
    """Puts the hook into a config whose model has such a generator."""
    if _KIND in str(cfg.get('model')):
        hooks = cfg.get('custom_hooks') or []
        cfg.custom_hooks = [*hooks, dict(type='milan_mm.TargetCacheHook')]


def cached(model: torch.nn.Module) -> list[CachedTargetGenerator]:
    """The model's generators that keep targets, those inside others too."""
    return [part for teacher in unwrapped(model).teachers for part in teacher.modules()
            if isinstance(part, CachedTargetGenerator)]


def _shapes(cache: CachedTargetGenerator, runner: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of features and importance: the teacher is asked about one grey image."""
    model = unwrapped(runner.model)
    channels = cache.in_channels or model.backbone.patch_embed.projection.in_channels
    device = next(model.parameters()).device
    with torch.no_grad():
        target = cache.teacher.generate(torch.zeros(1, channels, *model.backbone.img_size,
                                                    device=device))
    return tuple(target.features.shape[1:]), tuple(target.importance.shape[1:])
