# SPDX-License-Identifier: Apache-2.0
"""Losses and gradients that are not finite: the update is left out, its images are written down.

One of them in an update would spread to every weight, and the run would go on to its end with them.
"""
import functools
import json
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank, is_main_process
from mmengine.hooks import Hook
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ..checkpoints.io import run_checkpoints
from ..checkpoints.strict import first_not_finite, is_finite
from ..errors import MilanError
from ..registry import HOOKS
from ..unwrapped import unwrapped
from ..wording import some_of

RECORD = 'bad_numbers.jsonl'
_TOTAL = 'updates_left_out'
_SCALER_PATIENCE = 50  # skips in a row; a dynamic scale of 2**16 is down at 1 after 16


@HOOKS.register_module()
class BadNumbersHook(Hook):
    """Leaves out updates from losses or gradients that are not finite, and saves no such state.

    All processes leave out the same updates, and of an accumulated one all its batches; running
    statistics of batch norms go back to those after the last update. Each batch that did it gets a
    line in ``bad_numbers.jsonl`` in the work folder: its images, their sample keys, and the seed
    and the epoch (from 0) that these come from. What overflows by a loss scale is left to the
    scaler, which skips by itself.

    A good run computes the same with this hook, to the bit. An update costs one more reading of the
    gradients, one exchange of two numbers between processes, and one wait for the device.

    Args:
        stop_after: so many updates left out in a row end the run.
    """
    priority = 'HIGHEST'  # before the log takes the losses in, and before anything is saved

    def __init__(self, stop_after: int = 5) -> None:
        if stop_after < 1:
            raise MilanError(f'stop_after of BadNumbersHook is {stop_after}, expected a number '
                             'from 1: so many updates left out in a row end the run')
        self.stop_after = stop_after
        self._in_a_row = self._scaler_skips = 0
        self._batch: Any = None
        self._constants: set[str] = set()  # buffers that are not finite by design
        self._passed: list[tuple[Tensor, dict]] = []  # loss and description since the last update

    def before_train(self, runner: Any) -> None:
        self._runner, wrapper = runner, runner.optim_wrapper
        self._step, self._backward = wrapper.step, wrapper.backward

        @functools.wraps(wrapper.step)  # mmengine's schedules mark it, and look for their mark
        def step(**kwargs: Any) -> None:
            self._step_if_finite(**kwargs)

        wrapper.step, wrapper.backward = step, self._note_and_backward
        model = unwrapped(runner.model)
        self._statistics = [part for module in model.modules() if isinstance(module, _BatchNorm)
                            for part in module.buffers()]
        self._kept = [part.clone() for part in self._statistics]
        self._constants = {name for name, part in model.named_buffers()
                           if part.is_floating_point() and not is_finite(part)}

    def after_train(self, runner: Any) -> None:
        runner.optim_wrapper.step, runner.optim_wrapper.backward = self._step, self._backward
        if total := runner.message_hub.runtime_info.get(_TOTAL):
            runner.logger.warning(f'{total} updates were left out for losses or gradients that are '
                                  f'not finite: {Path(runner.work_dir) / RECORD}')

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self._batch = data_batch

    def after_train_iter(self,
                         runner: Any,
                         batch_idx: int,
                         data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        outputs = {} if outputs is None else outputs
        for name, value in list(outputs.items()):
            if isinstance(value, Tensor) and not is_finite(value.detach()):
                del outputs[name]  # the log's averages would be NaN

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        state = {name: part for name, part in checkpoint['state_dict'].items()
                 if name not in self._constants}
        if problem := (first_not_finite(state, 'state_dict')
                       or first_not_finite(checkpoint.get('optimizer'), 'optimizer')):
            raise MilanError(f'after iteration {runner.iter} {problem}, and no checkpoint is made '
                             f'of that. {_mend(runner)}')

    def _note_and_backward(self, loss: Tensor, **kwargs: Any) -> None:
        self._passed.append((loss.detach().float(), self._describe()))
        self._backward(loss, **kwargs)

    def _describe(self) -> dict:
        """Where the batch came from, as plain values."""
        batch = self._batch if isinstance(self._batch, dict) else {}
        keys = batch.get('sample_key')
        return dict(
            iter=self._runner.iter, epoch=self._runner.epoch, rank=get_rank(),
            seed=getattr(self._runner.train_dataloader.sampler, 'seed', None),
            images=[str(s.metainfo.get('img_path')) for s in batch.get('data_samples') or ()],
            sample_keys=[] if keys is None else [int(key) for key in keys])

    def _step_if_finite(self, **kwargs: Any) -> None:
        parameters = [p for group in self._runner.optim_wrapper.optimizer.param_groups
                      for p in group['params']]
        zero = torch.zeros(1, device=parameters[0].device)  # neither list is empty with it
        flags = torch.stack([
            _any_not_finite([zero, *(loss for loss, _ in self._passed)]),
            _any_not_finite([zero, *(p.grad for p in parameters if p.grad is not None)])]).int()
        all_reduce(flags, 'max')
        bad_loss, bad_gradient = flags.tolist()
        if not bad_loss and not bad_gradient:
            self._step(**kwargs)
            self._in_a_row = self._scaler_skips = 0
            _copy(self._statistics, self._kept)
        elif not bad_loss and self._scaler_takes_it():
            self._step(**kwargs)
        else:
            _copy(self._kept, self._statistics)
            self._leave_out('loss' if bad_loss else 'gradient')
        self._passed.clear()

    def _scaler_takes_it(self) -> bool:
        scaler = getattr(self._runner.optim_wrapper, 'loss_scaler', None)
        if scaler is None or not scaler.is_enabled():
            return False
        self._scaler_skips += 1
        return self._scaler_skips <= _SCALER_PATIENCE

    def _leave_out(self, fault: str) -> None:
        """Writes down why; ends the run if it is one too many, on all processes alike."""
        runner, record = self._runner, Path(self._runner.work_dir) / RECORD
        self._in_a_row += 1
        total = runner.message_hub.runtime_info.get(_TOTAL, 0) + 1
        runner.message_hub.update_info(_TOTAL, total)
        own = [dict(batch, fault=fault, loss=str(loss.item())) for loss, batch in self._passed
               if fault == 'gradient' or not is_finite(loss)]
        batches = [batch for part in all_gather_object(own) for batch in part]
        images = some_of([image for batch in batches for image in batch['images']], 3)
        if is_main_process():
            with open(record, 'a', encoding='utf-8') as file:
                file.writelines(json.dumps(batch) + '\n' for batch in batches)
            runner.logger.warning(
                f'the update at iteration {runner.iter + 1} is left out, its {fault} is not finite '
                f'({self._in_a_row} in a row, {total} in all); images: {images}; all in {record}')
        if self._in_a_row >= self.stop_after:
            ruined = not all(is_finite(p.detach()) for p in runner.model.parameters())
            raise MilanError(
                f'the loss or gradient of {self._in_a_row} updates in a row is not finite, last at '
                f'iteration {runner.iter + 1} with {images} (all in {record}); '
                + ('the weights are no longer finite either. ' if ruined else 'the weights are. ')
                + _mend(runner) + '; default_hooks.bad_numbers.stop_after says how many are borne')


def _mend(runner: Any) -> str:
    good = run_checkpoints(Path(runner.work_dir))
    return ('Lower the learning rate or remove such images, then '
            + (f'go on from the last good checkpoint with --resume {good[0]}' if good
               else 'start anew: there is no checkpoint yet'))


def _any_not_finite(values: list[Tensor]) -> Tensor:
    """Whether any has NaN, infinity, or a norm above float32: on their device, not waited for.

    The maximum would take eight times as long as the norm on a CPU.
    """
    norms = torch._foreach_norm([value for value in values if value.numel()], dtype=torch.float32)
    return ~torch.stack(list(norms)).isfinite().all()


def _copy(source: list[Tensor], target: list[Tensor]) -> None:
    for old, new in zip(source, target):
        new.copy_(old)
