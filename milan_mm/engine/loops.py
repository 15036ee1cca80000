# SPDX-License-Identifier: Apache-2.0
"""Training loops that go on from a checkpoint as if nothing had been.

mmengine's begin the epoch anew, with generators whose state no checkpoint keeps; in a run that
counts iterations they load all that came before. Here nothing random runs on: each step starts the
generators from (seed, iteration, process), each sample from (seed, epoch, sample). So no state has
to be kept but where the run is, which :class:`PlaceHook` does.
"""
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop

from ..compat.dead_workers import batches_of
from ..compat.lazy_iterator import no_workers_yet
from ..datasets.keyed_batches import key_batches
from ..keyed_random import sample_key, seed_globals
from ..registry import LOOPS


def go_on_exactly(cfg: Config) -> None:
    """Puts these loops in the place of mmengine's in a config."""
    loop = cfg.train_cfg
    kind = loop.get('type') or ('EpochBasedTrainLoop' if loop.get('by_epoch', True) else
                                'IterBasedTrainLoop')
    own = _INSTEAD.get(str(getattr(kind, '__name__', kind)).rpartition('.')[2])
    if own:
        loop.pop('by_epoch', None)
        loop['type'] = own


class _Exact(BaseLoop):
    """What both loops do alike.

    Attributes:
        batch: number of the next one, in the epoch or, where iterations are counted, of all.
        resumed: whether the run goes on from a checkpoint and has not taken a step yet.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.batch, self.resumed = 0, False
        self.keyed = key_batches(self.dataloader)

    def go_on_from(self, batch: int) -> None:
        """Leaves out so many batches of the epoch, which were trained on before."""
        self.batch, self.resumed = batch, True

    def run(self) -> torch.nn.Module:
        self.runner.call_hook('before_train')
        if self.resumed:
            self.evaluate_if_due()  # a checkpoint is made before the evaluation of its time
        self.run_all()
        self.runner.call_hook('after_train')
        return self.runner.model

    def begin_step(self, number: int) -> None:
        """Before a batch is trained on: everything random in the step comes from its key."""
        self.batch, self.resumed = number + 1, False
        key = sample_key(self.runner.seed or 0, self._iter, get_rank(), 'step')
        seed_globals(key)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(key)

    def evaluate(self, count: int, total: int) -> None:
        """Runs the validation if it is due after so many epochs or iterations."""
        self._decide_current_val_interval()
        if (self.runner.val_loop is not None and count >= self.val_begin
                and (count % self.val_interval == 0 or count == total)):
            self.runner.val_loop.run()


@LOOPS.register_module()
class ExactEpochLoop(_Exact, EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop``; it goes on in the midst of an epoch."""

    def run_all(self) -> None:
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self.evaluate_if_due()

    def run_epoch(self) -> None:
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        if self.keyed is not None:
            self.keyed.first = self.batch
        for number, data_batch in enumerate(batches_of(self.dataloader), self.batch):
            self.run_iter(number, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
        self.batch = 0

    def run_iter(self, idx: int, data_batch: Any) -> None:
        self.begin_step(idx)
        super().run_iter(idx, data_batch)

    def evaluate_if_due(self) -> None:
        if not self.batch:
            self.evaluate(self._epoch, self._max_epochs)


@LOOPS.register_module()
class ExactIterLoop(_Exact, IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop``; it loads nothing of what was trained on before."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with no_workers_yet():
            super().__init__(*args, **kwargs)

    def run_all(self) -> None:
        self.runner.call_hook('before_train_epoch')
        batches = self.endless()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
            self.evaluate_if_due()
        self.runner.call_hook('after_train_epoch')

    def endless(self) -> Iterator[Any]:
        """Batches from where the run is on; a sampler that ends begins its next epoch."""
        while True:
            first = self.batch
            if self.keyed is not None:
                if hasattr(self.keyed.sampler, 'epoch'):
                    epoch, first = divmod(first, len(self.dataloader))
                    self.keyed.sampler.set_epoch(epoch)
                self.keyed.first = first
            yield from batches_of(self.dataloader)

    def run_iter(self, data_batch: Any) -> None:
        self.begin_step(self.batch)
        super().run_iter(data_batch)

    def evaluate_if_due(self) -> None:
        self.evaluate(self._iter, self._max_iters)


_INSTEAD = dict(EpochBasedTrainLoop='milan_mm.ExactEpochLoop',
                IterBasedTrainLoop='milan_mm.ExactIterLoop')
