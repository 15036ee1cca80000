# SPDX-License-Identifier: Apache-2.0
"""MILAN: masked image pretraining on language assisted representation (arXiv 2208.06049).

A step is five lines: teach, mask, encode, decode, compare.
"""
from collections.abc import Callable
from typing import Any

from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..checkpoints.handover import load_pretrained
from ..errors import MilanError
from ..registry import MODELS


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
        data_preprocessor: as of ``BaseSelfSupervisor``; by default
            :class:`PretrainDataPreprocessor`.
        init_from: checkpoint of an earlier MILAN or MAE run to start the student from.
        trust_init_from: whether that file, if it is a pickle, may run the code it names.
        init_cfg: as of ``BaseModule``.

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
                 data_preprocessor: dict | nn.Module | None = None,
                 init_from: str | None = None,
                 trust_init_from: bool = False,
                 init_cfg: dict | None = None) -> None:
        backbone, teacher, second, masking = (
            part if part is None or isinstance(part, nn.Module) else MODELS.build(part)
            for part in (backbone, target_generator, importance_generator, mask_generator))
        if isinstance(neck, dict):
            neck = {
                'embed_dim': backbone.embed_dims,
                'grid_size': backbone.grid_size,
                'predict_feature_dim': teacher.dim,
                **neck
            }
        if not isinstance(data_preprocessor, nn.Module):
            data_preprocessor = MODELS.build(
                {'type': 'milan_mm.PretrainDataPreprocessor', **(data_preprocessor or {})})
        super().__init__(
            backbone=backbone,
            neck=neck if isinstance(neck, nn.Module) else MODELS.build(neck),
            head=head if isinstance(head, nn.Module) else MODELS.build(head),
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg)
        self.mask_generator = masking
        self.init_from, self.trust_init_from = init_from, trust_init_from
        # Teachers are kept out of the module tree: out of checkpoints, optimizers, DDP's and
        # FSDP's parameters, and init_weights. `_apply` below moves them along.
        self.__dict__['target_generator'] = teacher
        self.__dict__['importance_generator'] = second
        self._match_teachers()

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
        target = self.target_generator(inputs)
        importance = self.importance(inputs, target.importance)
        masks = self.mask_generator(importance, sample_keys)
        latent = self.backbone(inputs, masks.visible)
        pred = self.neck(latent, masks)
        losses = self.head.loss(pred, target.features, masks)
        seen = importance.gather(1, masks.visible).sum(dim=1) / importance.sum(dim=1)
        return {**losses, 'importance_seen': seen.mean()}

    def importance(self, inputs: Tensor, by_target: Tensor) -> Tensor:
        """(B, N) importance: the target generator's, unless another one is named for it."""
        if self.importance_generator is None:
            return by_target
        return self.importance_generator(inputs).importance

    def forward(self,
                inputs: Tensor,
                data_samples: list[DataSample] | None = None,
                sample_keys: Tensor | None = None,
                mode: str = 'tensor') -> Any:
        """``mode='loss'`` gives :meth:`loss`, ``mode='tensor'`` the encoder's features."""
        if mode == 'loss':
            return self.loss(inputs, data_samples, sample_keys)
        return super().forward(inputs, data_samples, mode)

    def init_weights(self) -> None:
        super().init_weights()
        if self.init_from:
            load_pretrained(self, self.init_from, self.trust_init_from)

    def _match_teachers(self) -> None:
        teacher, second = self.target_generator, self.importance_generator
        if self.mask_generator.needs_importance and not (second or teacher).measures_importance:
            raise MilanError(
                f'{type(self.mask_generator).__name__} needs the importance of patches, and '
                f'{type(second or teacher).__name__} measures none. Use RandomMaskGenerator, or '
                "name a CLIP teacher as the model's importance_generator")
        grid = self.backbone.grid_size
        self.mask_generator.match_student(grid)
        pixels = self.data_preprocessor
        normalised = getattr(pixels, '_enable_normalize', False)
        for generator in filter(None, (teacher, second)):
            generator.match_student(
                grid,
                pixels.mean.flatten().tolist() if normalised else None,
                pixels.std.flatten().tolist() if normalised else None)

    def _apply(self, fn: Callable, *args: Any, **kwargs: Any) -> 'MILAN':
        for generator in filter(None, (self.target_generator, self.importance_generator)):
            generator._apply(fn, *args, **kwargs)
        return super()._apply(fn, *args, **kwargs)
