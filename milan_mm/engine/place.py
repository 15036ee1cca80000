# SPDX-License-Identifier: Apache-2.0
"""Where a run is: kept in its checkpoints beside weights, optimizer and schedules."""
from typing import Any

import torch
from mmengine.dist import all_gather, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from ..unwrapped import unwrapped
from .loops import ExactEpochLoop, ExactIterLoop

KEY = 'place'


class PlaceHook(Hook):
    """Keeps the seed of the order, the batches done in the epoch, and sums of gradients.

    The latter are there where a checkpoint is made between two updates, each process's own.

    Args:
        resume: whether the run goes on from what it loads.
    """

    def __init__(self, resume: bool) -> None:
        self.resume = resume
        self._sums: list[dict[str, Tensor]] = []

    def before_writing(self, runner: Any) -> None:
        """On all processes, before one of them writes a checkpoint."""
        self._sums = gather_sums(runner.model)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        loop = runner.train_loop
        if isinstance(loop, (ExactEpochLoop, ExactIterLoop)):
            after_epoch = checkpoint['meta']['epoch'] > runner.epoch
            checkpoint[KEY] = dict(
                seed=getattr(loop.dataloader.sampler, 'seed', None), images=_images(runner),
                batch=0 if after_epoch else loop.batch, sums=self._sums)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        place, loop = checkpoint.get(KEY), runner.train_loop
        if not self.resume or place is None or not isinstance(
                loop, (ExactEpochLoop, ExactIterLoop)):
            return
        if place['seed'] is not None:
            loop.dataloader.sampler.seed = place['seed']
        now = _images(runner)
        if place['images'] != now:
            runner.logger.warning(
                f'the checkpoint was made with {place["images"]} images a step, this run has {now}:'
                ' it goes on, but not as it would have')
        loop.go_on_from(place['batch'] * place['images'] // now)
        self._take_sums(runner, place['sums'])

    def _take_sums(self, runner: Any, sums: list[dict[str, Tensor]]) -> None:
        if not sums:
            return
        if len(sums) != get_world_size() or isinstance(runner.model, FullyShardedDataParallel):
            runner.logger.warning('gradients summed up before the checkpoint are left out: they '
                                  f'are of {len(sums)} processes, the run has {get_world_size()}')
            return
        own = dict(unwrapped(runner.model).named_parameters())
        for name, value in sums[get_rank()].items():
            own[name].grad = value.to(own[name])
        runner.logger.info('the gradients summed up before the checkpoint are taken up again')


def place_problem(place: Any, own: dict[str, Any]) -> str | None:
    """What is wrong with a checkpoint's place; older ones have none."""
    if place is None:
        return None
    if not isinstance(place, dict) or set(place) != {'seed', 'images', 'batch', 'sums'}:
        return 'it does not say where its run was (place)'
    for name, least in (('seed', 0), ('images', 1), ('batch', 0)):
        value = place[name]
        if not (type(value) is int and value >= least or name == 'seed' and value is None):
            return f'its place.{name} is {value!r}, expected a number from {least}'
    sums = place['sums']
    if not isinstance(sums, list) or not all(isinstance(one, dict) for one in sums):
        return 'its place.sums is no list of gradients'
    for name, value in (pair for one in sums for pair in one.items()):
        if not isinstance(value, Tensor) or name not in own or value.shape != own[name].shape:
            return f'its place.sums has no gradient of {name}'
    return None


def gather_sums(model: nn.Module) -> list[dict[str, Tensor]]:
    """Gradients that wait for an update, by parameter, of each process; to be called by all.

    Returns:
        One dict for each process; empty on all but the first, or if nothing waits.
    """
    if isinstance(model, FullyShardedDataParallel):
        return []
    parameters = [(name, p) for name, p in unwrapped(model).named_parameters() if p.requires_grad]
    there = all_gather(torch.tensor([int(p.grad is not None) for _, p in parameters],
                                    device=parameters[0][1].device))
    sums: list[dict[str, Tensor]] = [{} for _ in there]
    for (name, p), *waiting in zip(parameters, *there):
        if any(waiting):
            parts = all_gather(torch.zeros_like(p) if p.grad is None else p.grad)
            for kept, part, waits in zip(sums, parts, waiting):
                if waits and is_main_process():
                    kept[name] = part.detach().cpu()
    return sums if any(sums) else []


def _images(runner: Any) -> int:
    """That all processes take in a step."""
    loader = runner.train_dataloader
    return (loader.batch_size or loader.batch_sampler.batch_size) * get_world_size()
