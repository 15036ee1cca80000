# SPDX-License-Identifier: Apache-2.0
"""MILAN: masked image pretraining on language assisted representation (arXiv 2208.06049).

A step is five lines: teach, mask, encode, decode, compare.
"""
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..checkpoints.handover import load_pretrained
from ..compat.pixel_statistics import normalises, pixel_statistics
from ..errors import MilanError
from ..registry import MODELS
from ..structures import MaskIds, TeacherOutput, pair
from .encoder import check_tiling
from .reconstruction_head import ReconstructionHead
from .targets.base import TargetGenerator


@MODELS.register_module()
class MILAN(BaseSelfSupervisor):
    """The algorithm. Every part is a choice: MAE is (pixels, MAE's decoder, random, masked MSE).

    Args:
        backbone: the encoder, such as :class:`MaskedVisionTransformer`.
        target_generator: gives targets and importance, such as :class:`CLIPTargetGenerator`.
        mask_generator: draws the visible patches, such as :class:`SemanticMaskGenerator`.
        neck: the decoder, such as :class:`PromptingDecoder`. The widths of encoder and target
            and the grid are filled in where they are not given.
        head: compares, such as :class:`ReconstructionHead`.
        importance_generator: a second target generator whose importance is used instead of the
            first one's; for targets that measure none (pixels) under semantic masking.
        teacher_channels: which of the images' channels the teachers get, in their order, such as
            (2, 1, 0); for teachers of RGB beside a student of other channels. None for all.
        data_preprocessor: see ``BaseSelfSupervisor``; by default
            :class:`PretrainDataPreprocessor`.
        init_from: checkpoint of an earlier MILAN or MAE run to start the student from.
        trust_init_from: whether that file, if it is a pickle, may run the code it names.
        init_cfg: see ``BaseModule``.

    Raises:
        MilanError: if the parts do not fit together, before any training.
    """

    def __init__(self,
                 backbone: dict | nn.Module,
                 target_generator: dict | nn.Module,
                 mask_generator: dict | nn.Module,
                 neck: dict | nn.Module,
                 head: dict | nn.Module,
                 importance_generator: dict | nn.Module | None = None,
                 teacher_channels: Sequence[int] | None = None,
                 data_preprocessor: dict | nn.Module | None = None,
                 init_from: str | None = None,
                 trust_init_from: bool = False,
                 init_cfg: dict | None = None) -> None:
        encoder, teacher, masking = map(_built, (backbone, target_generator, mask_generator))
        second = None if importance_generator is None else _built(importance_generator)
        if isinstance(neck, dict):
            neck = {
                'embed_dim': encoder.embed_dims,
                'grid_size': encoder.grid_size,
                'predict_feature_dim': teacher.dim,
                **neck
            }
        if not isinstance(data_preprocessor, nn.Module):
            data_preprocessor = MODELS.build(
                {'type': 'milan_mm.PretrainDataPreprocessor', **(data_preprocessor or {})})
        super().__init__(
            backbone=encoder,
            neck=_built(neck),
            head=_built(head),
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg)
        self.mask_generator = masking
        self.teacher_channels = None if teacher_channels is None else list(teacher_channels)
        self.init_from, self.trust_init_from = init_from, trust_init_from
        # Teachers are kept out of the module tree: out of checkpoints, optimizers, DDP's and
        # FSDP's parameters, and init_weights. `_apply` below moves them along.
        self.__dict__['target_generator'] = teacher
        self.__dict__['importance_generator'] = second
        self._match_teachers()
        self.seen_grid = pair(encoder.grid_size)

    def loss(self,
             inputs: Tensor,
             data_samples: list[DataSample] | None = None,
             sample_keys: Tensor | None = None) -> dict[str, Tensor]:
        """One training step's losses.

        Args:
            inputs: (B, 3, H, W) normalised pixels.
            data_samples: not used.
            sample_keys: (B,) int64; the masks are a function of them. None draws keys from
                torch's global generator.

        Returns:
            ``loss``, and what the log shows beside it.
        """
        target = self.teach(inputs)
        masks = self.mask_generator(target.importance, sample_keys)
        latent = self.backbone(inputs, masks.visible)
        pred = self.neck(latent, masks)
        losses = self.head.loss(pred, target.features, masks)
        return {**losses, 'importance_seen': masks.share_seen(target.importance).mean()}

    def teach(self, inputs: Tensor) -> TeacherOutput:
        """The targets of a batch, and the importance that its masks are drawn by.

        Args:
            inputs: (B, 3, H, W) normalised pixels.
        """
        if self.teacher_channels is not None:
            inputs = inputs[:, self.teacher_channels]
        target = self.target_generator(inputs)
        if self.importance_generator is None:
            return target
        return TeacherOutput(target.features, self.importance_generator(inputs).importance)

    def predict(self, inputs: Tensor, masks: MaskIds | None = None) -> Tensor:
        """What the decoder makes of the visible patches, for whoever looks at a trained model.

        Args:
            inputs: (B, 3, H, W) normalised pixels, of the size the model is for.
            masks: which patches are seen; None shows all of them.

        Returns:
            (B, 1 + N, T), CLS first, patches in raster order. Only where :attr:`predicts`.
        """
        if masks is None:
            rows, columns = self.backbone.grid_size
            everything = torch.arange(rows * columns, device=inputs.device)
            everything = everything.expand(len(inputs), -1)
            masks = MaskIds(everything, everything[:, :0])
        return masks.to_raster(self.neck(self.backbone(inputs, masks.visible), masks))

    @property
    def predicts(self) -> bool:
        """Whether targets of patches are predicted and compared one by one; MaskAlign does not."""
        return isinstance(self.head, ReconstructionHead)

    @property
    def teachers(self) -> list[TargetGenerator]:
        """The target generator and, if there is one, the importance generator."""
        return [one for one in (self.target_generator, self.importance_generator)
                if one is not None]

    @property
    def measures_importance(self) -> bool:
        """Whether the importance tells patches apart."""
        return self.teachers[-1].measures_importance  # an importance generator comes last

    def forward(self,
                inputs: Tensor,
                data_samples: list[DataSample] | None = None,
                sample_keys: Tensor | None = None,
                mode: str = 'tensor') -> Any:
        """``mode='loss'`` gives :meth:`loss`, ``mode='tensor'`` the encoder's features.

        Raises:
            MilanError: for a loss of images that patches do not tile, or whose size is another
                than the model's and a part is not for any other.
        """
        if mode == 'loss':
            side = self.backbone.patch_size
            check_tiling(pair(inputs.shape[-2:]), side)
            self.set_grid(pair(length // side for length in inputs.shape[-2:]))
            return self.loss(inputs, data_samples, sample_keys)
        return super().forward(inputs, data_samples, mode)

    def set_grid(self, grid_size: tuple[int, int]) -> None:
        """Prepares all parts for images of so many rows and columns of patches.

        The encoder takes any. What is saved stays as it is for the model's own size.
        """
        if grid_size == self.seen_grid:
            return
        self.mask_generator.match_student(grid_size)
        for part in (self.neck, *self.teachers):
            if not hasattr(part, 'set_grid'):
                raise MilanError(f'{type(part).__name__} has no set_grid(grid_size), so it takes '
                                 f'images of {self.backbone.grid_size} patches only and got '
                                 f'{grid_size}: leave out phases of RandomResizedCropAndFlip')
            part.set_grid(grid_size)
        self.seen_grid = grid_size

    def init_weights(self) -> None:
        super().init_weights()
        if self.init_from:
            load_pretrained(self, self.init_from, self.trust_init_from)

    def _match_teachers(self) -> None:
        if self.mask_generator.needs_importance and not self.measures_importance:
            raise MilanError(
                f'{type(self.mask_generator).__name__} needs the importance of patches, and '
                f'{type(self.teachers[-1]).__name__} measures none. Use RandomMaskGenerator, or '
                "name a CLIP teacher as the model's importance_generator")
        grid = self.backbone.grid_size
        self.mask_generator.match_student(grid)
        pixels = self.data_preprocessor
        mean, std = pixel_statistics(pixels) if normalises(pixels) else (None, None)
        seen = self._check_channels(mean)
        if mean is not None and std is not None and seen is not None and len(mean) > 1:
            mean, std = [mean[i] for i in seen], [std[i] for i in seen]
        for teacher in self.teachers:
            teacher.match_student(grid, mean, std)

    def _check_channels(self, mean: list[float] | None) -> list[int] | None:
        """The channels that the teachers get; None for all."""
        count, seen = self.backbone.patch_embed.projection.in_channels, self.teacher_channels
        if mean is not None and len(mean) not in (1, count):
            raise MilanError(f'the student takes {count} channels (model.backbone.in_channels), '
                             f'and data_preprocessor has a mean of {len(mean)}')
        if seen is not None and not all(0 <= i < count for i in seen):
            raise MilanError(f'teacher_channels={tuple(seen)}: the images have channels 0 to '
                             f'{count - 1}')
        given = count if seen is None else len(seen)
        wrong = next((t for t in self.teachers if t.in_channels not in (None, given)), None)
        if wrong is not None:
            raise MilanError(
                f'{type(wrong).__name__} takes {wrong.in_channels} channels and would get {given}: '
                'name those it gets, such as teacher_channels=(0, 0, 0) for the first one thrice')
        return seen

    def _apply(self, fn: Callable, *args: Any, **kwargs: Any) -> 'MILAN':
        for teacher in self.teachers:
            teacher._apply(fn, *args, **kwargs)
        return super()._apply(fn, *args, **kwargs)


def _built(part: dict | nn.Module) -> nn.Module:
    return part if isinstance(part, nn.Module) else MODELS.build(part)
