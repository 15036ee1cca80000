# SPDX-License-Identifier: Apache-2.0
"""The student's own past as its teacher, and the hook that keeps it."""
import copy
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn import functional as F

from ...checkpoints.strict import load_strictly
from ...errors import MilanError
from ...registry import HOOKS, MODELS
from ...structures import TeacherOutput
from ...unwrapped import unwrapped
from ..encoder import MaskedVisionTransformer, look_up
from .base import TargetGenerator
from .encoder import run_blocks

_KEY = 'ema_teacher'


@MODELS.register_module()
class EMATargetGenerator(TargetGenerator):
    """An exponential moving average of the student's encoder, which sees the whole image.

    The control of the target ablation that needs no teacher from outside, after data2vec (Baevski
    et al. 2022, arXiv 2202.03555): the target of a token is the mean over the last ``levels``
    blocks of their outputs, each normalised per token without learned scale. Here a block's output
    is taken behind its residual sum; data2vec describes the output of its MLP before that. The
    importance is the CLS attention of the average's last block, which starts out near uniform.

    :class:`EMATeacherHook` has to be among the ``custom_hooks``: it makes the average follow the
    student, saves it with each checkpoint (as large as the encoder) and resumes it.

    Args:
        arch: the encoder's, see :class:`MaskedVisionTransformer`.
        momentum: share of the average that an update keeps, at the start of the training.
        end_momentum: the same at its end; linear in between. None keeps ``momentum``.
        levels: number of last blocks, K in data2vec.

    Raises:
        MilanError: for other values; or at the first batch, if no hook gave it a student.
    """
    measures_importance = True

    def __init__(self,
                 arch: str | dict = 'vit-b',
                 momentum: float = 0.999,
                 end_momentum: float | None = None,
                 levels: int = 6) -> None:
        super().__init__()
        sizes = look_up(arch)
        end_momentum = momentum if end_momentum is None else end_momentum
        for value in (momentum, end_momentum):
            if not 0 <= value <= 1:
                raise MilanError(f'a momentum must be from 0 to 1, got {value}')
        if not 1 <= levels <= sizes['num_layers']:
            raise MilanError(f'levels must be from 1 to {sizes["num_layers"]}, the number of '
                             f'blocks; got {levels}')
        self.momentum, self.end_momentum, self.levels = momentum, end_momentum, levels
        self.dim = sizes['embed_dims']
        self.average: Any = None  # a MaskedVisionTransformer, from follow on

    def follow(self, student: MaskedVisionTransformer,
               state: dict[str, Tensor] | None = None) -> None:
        """Starts as a copy of the student, or as what a checkpoint kept of an earlier average.

        Raises:
            MilanError: if the student has another width, or ``state`` is of another encoder.
        """
        if student.embed_dims != self.dim or len(student.layers) < self.levels:
            raise MilanError(
                f'EMATargetGenerator is set to a width of {self.dim} and {self.levels} levels, the '
                f'encoder has {student.embed_dims} and {len(student.layers)} blocks; give both the '
                'same arch')
        self.average = copy.deepcopy(student)
        if state is not None:
            load_strictly(self.average, state,
                          'the average in the checkpoint is of another encoder',
                          'Give the encoder the arch that it was trained with')
        self.freeze()

    @torch.no_grad()
    def update(self, student: MaskedVisionTransformer, progress: float = 0.0) -> float:
        """Moves the average towards the student.

        Args:
            student: after the optimizer's step.
            progress: share of the training that is done, in 0..1.

        Returns:
            The momentum it used.
        """
        momentum = self.momentum + (self.end_momentum - self.momentum) * progress
        for mean, new in zip(self.average.parameters(), student.parameters()):
            mean.lerp_(new.to(mean.dtype), 1 - momentum)
        for mean, new in zip(self.average.buffers(), student.buffers()):
            mean.copy_(new)
        return momentum

    def set_grid(self, grid_size: tuple[int, int]) -> None:
        self.grid_size = grid_size  # which the images say, too

    def generate(self, images: Tensor) -> TeacherOutput:
        if self.average is None:
            raise MilanError('EMATargetGenerator follows no student yet: add '
                             "custom_hooks=[dict(type='milan_mm.EMATeacherHook')] to the config")
        outputs, importance = run_blocks(self.average, images, self.levels)
        normed = [F.layer_norm(x.float(), x.shape[-1:]) for x in outputs]
        return TeacherOutput(torch.stack(normed).mean(0), importance)


@HOOKS.register_module()
class EMATeacherHook(Hook):
    """Lets every :class:`EMATargetGenerator` of the model follow its encoder.

    After each update of the optimizer, not after each batch of an accumulated one. The averages
    are saved in the checkpoints beside the model, below the key ``ema_teacher``.
    """
    priority = 'NORMAL'

    def __init__(self) -> None:
        self.resumed: list[dict[str, Tensor]] | None = None

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        self.resumed = checkpoint.get(_KEY)

    def before_train(self, runner: Any) -> None:
        model, teachers = averaged(runner.model)
        if not runner.iter:  # a training that starts from weights starts its average from them too
            self.resumed = None
        elif self.resumed is None or len(self.resumed) != len(teachers):
            raise MilanError(
                'the checkpoint to resume keeps no average of the encoder (or of another number '
                'of teachers): it was trained without EMATeacherHook. Start a new training from '
                'its weights instead: --init-from CHECKPOINT')
        for i, teacher in enumerate(teachers):
            teacher.follow(model.backbone, self.resumed and self.resumed[i])
        print_log(f'the teacher is an average of the encoder, momentum {teachers[0].momentum} to '
                  f'{teachers[0].end_momentum}' + (', resumed' if self.resumed else ''),
                  logger='current')
        self.resumed = None

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        if not runner.optim_wrapper.should_update():
            return
        model, teachers = averaged(runner.model)
        for teacher in teachers:
            momentum = teacher.update(model.backbone, (runner.iter + 1) / runner.max_iters)
            runner.message_hub.update_scalar('train/ema_momentum', momentum)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        checkpoint[_KEY] = [
            {k: v.cpu() for k, v in teacher.average.state_dict().items()}
            for teacher in averaged(runner.model)[1]]


def averaged(model: nn.Module) -> tuple:
    """The model without a wrapper, and its averages, those inside other teachers too.

    Raises:
        MilanError: if it has none, or its parameters are spread over processes.
    """
    if type(model).__name__.endswith('FullyShardedDataParallel'):
        raise MilanError('EMATeacherHook copies the whole encoder, and under FSDP no process has '
                         'it; train with DistributedDataParallel')
    model = unwrapped(model)
    generators = [getattr(model, name, None)
                  for name in ('target_generator', 'importance_generator')]
    teachers = [part for generator in generators if generator is not None
                for part in generator.modules() if isinstance(part, EMATargetGenerator)]
    if not teachers:
        raise MilanError('EMATeacherHook found no EMATargetGenerator in the model; set '
                         "model.target_generator=dict(type='milan_mm.EMATargetGenerator') or "
                         'leave the hook out')
    return model, teachers
