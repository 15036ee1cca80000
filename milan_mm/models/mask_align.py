# SPDX-License-Identifier: Apache-2.0
"""MaskAlign: masked pretraining without reconstruction (Xue et al., arXiv 2211.08887).

The first three lines of MILAN's step, teach, mask, encode; then align instead of decode. Nothing
is predicted for a patch the student did not see.

From the paper and its published command line: attention-guided masking of 70 %, an intact image
for the teacher and visible patches alone for the student, linear adaptors, a linear combination of
student levels, the last five levels of the teacher, targets whitened by a norm without parameters,
smooth L1. Assumed here, for want of a statement to go by: the student's levels are as many as the
teacher's, counted from the last block; combination weights are free and start equal; student
levels below the encoder's final norm pass a norm without parameters; the teacher's levels weigh
the same; smooth L1 turns linear at 1; the CLS token is aligned too.
"""
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import MilanError
from ..registry import MODELS
from ..structures import MaskIds, gather_tokens, repeat_for
from .block_outputs import BlockOutputs
from .milan import MILAN
from .reconstruction_head import CosineReconstructionLoss


@MODELS.register_module()
class MaskAlign(MILAN):
    """The algorithm, on MILAN's parts.

    What stays out of checkpoints, how teacher and student are matched, and where the student
    starts from are as in :class:`MILAN`. Any target generator will do: one with ``target_levels``
    is aligned level by level, another one as a single level. Of an earlier run the encoder is
    taken over; the alignment belongs to a teacher and starts fresh.

    Args:
        backbone: the encoder, a ViT with ``layers``, such as :class:`MaskedVisionTransformer`.
        target_generator: such as :class:`CLIPLevelsTargetGenerator`.
        mask_generator: such as :class:`SemanticMaskGenerator`.
        neck: such as :class:`DynamicAlignment`. Widths and the teacher's levels are filled in
            where they are not given.
        head: such as :class:`AlignmentHead`.
        **kwargs: arguments of :class:`MILAN`.

    Raises:
        MilanError: if the parts do not fit together, before any training.
    """

    def __init__(self, backbone: dict | nn.Module, target_generator: dict | nn.Module,
                 mask_generator: dict | nn.Module, neck: dict | nn.Module,
                 head: dict | nn.Module, **kwargs: Any) -> None:
        backbone, teacher = (part if isinstance(part, nn.Module) else MODELS.build(part)
                             for part in (backbone, target_generator))
        if isinstance(neck, dict):
            levels = getattr(teacher, 'target_levels', 1)
            neck = MODELS.build({
                'embed_dim': backbone.embed_dims,
                'target_dim': teacher.dim // levels,
                'teacher_levels': levels,
                **neck
            })
        super().__init__(backbone, teacher, mask_generator, neck, head, **kwargs)
        count, layers = self.neck.student_levels, self.backbone.layers
        if count > len(layers):
            raise MilanError(f'student_levels={count}, and the encoder has {len(layers)} blocks; '
                             'set model.neck.student_levels to that or less')
        # The last level is the encoder's output, after its final norm.
        self.recorded = BlockOutputs(list(layers)[len(layers) - count:-1])

    def loss(self,
             inputs: Tensor,
             data_samples: list[DataSample] | None = None,
             sample_keys: Tensor | None = None) -> dict[str, Tensor]:
        """One training step's losses; arguments and result are those of :meth:`MILAN.loss`."""
        target = self.teach(inputs)
        masks = self.mask_generator(target.importance, sample_keys)
        latent, levels = self.recorded(self.backbone, inputs, masks.visible)
        outward = getattr(self.backbone, 'outward', lambda tokens: tokens)
        aligned = self.neck([*map(outward, levels), latent])
        losses = self.head.loss(aligned, target.features, masks)
        return {**losses, 'importance_seen': masks.share_seen(target.importance).mean()}


@MODELS.register_module()
class DynamicAlignment(BaseModule):
    """Student levels, adapted and combined into what each teacher level is compared with.

    The aligned level j is the sum over student levels i of ``level_weights[i, j]`` times the
    linear adaptor of i applied to it. :class:`milan_mm.MaskAlign` fills in the first three
    arguments from the encoder and the teacher.

    Args:
        embed_dim: D, width of the encoder.
        target_dim: W, width of one teacher level.
        teacher_levels: L.
        student_levels: S, how many of the encoder's last blocks; None for as many as the
            teacher's.
        init_cfg: see ``BaseModule``.
    """

    def __init__(self,
                 embed_dim: int,
                 target_dim: int,
                 teacher_levels: int,
                 student_levels: int | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.student_levels = teacher_levels if student_levels is None else student_levels
        if self.student_levels < 1:
            raise MilanError(f'student_levels must be at least 1, got {student_levels}')
        self.adaptors = nn.ModuleList(
            nn.Linear(embed_dim, target_dim) for _ in range(self.student_levels))
        self.level_weights = nn.Parameter(
            torch.full((self.student_levels, teacher_levels), 1 / self.student_levels))

    def init_weights(self) -> None:
        super().init_weights()
        if self.init_cfg:
            return
        for adaptor in self.adaptors:
            nn.init.xavier_uniform_(adaptor.weight)
            nn.init.zeros_(adaptor.bias)

    def set_grid(self, grid_size: tuple[int, int]) -> None:
        """Nothing here depends on it."""

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Aligns.

        Args:
            levels: S tensors (B, 1 + V, D), CLS first, from low to high; the last one is
                normalised already.

        Returns:
            (B, 1 + V, L, W).
        """
        *lower, last = levels
        whitened = [F.layer_norm(level, level.shape[-1:]) for level in lower]
        adapted = torch.stack(
            [adaptor(level) for adaptor, level in zip(self.adaptors, [*whitened, last])], dim=2)
        return torch.einsum('bnsw,sl->bnlw', adapted, self.level_weights.to(adapted.dtype))


@MODELS.register_module()
class SmoothL1AlignmentLoss(nn.Module):
    """Smooth L1 of each token, averaged over channels.

    Args:
        beta: where the quadratic part ends and the linear one begins.
    """

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """pred and target (..., W) give (...), computed in float32 under autocast too."""
        loss = F.smooth_l1_loss(pred.float(), target.float(), reduction='none', beta=self.beta)
        return loss.mean(dim=-1)


@MODELS.register_module()
class AlignmentHead(BaseModule):
    """The mean loss over visible tokens and levels, against whitened targets.

    Whitening is a layer norm without parameters over the channels of a token of one level: the
    levels of a tower differ in scale, and a few channels of CLIP's would rule the loss.

    Args:
        loss: the loss of one token, as a config or a module: :class:`SmoothL1AlignmentLoss`, or
            one of :class:`ReconstructionHead`'s.
        cls_token: whether the CLS token is aligned with the teacher's, where that has one.
    """

    def __init__(self, loss: dict | nn.Module, cls_token: bool = True) -> None:
        super().__init__()
        self.loss_module = loss if isinstance(loss, nn.Module) else MODELS.build(loss)
        self.cls_token = cls_token
        self.cosine = CosineReconstructionLoss()

    def loss(self, aligned: Tensor, features: Tensor, masks: MaskIds) -> dict[str, Tensor]:
        """Compares.

        Args:
            aligned: (B, 1 + V, L, W), CLS first, in the order of ``masks.visible``.
            features: (B, 1 + N, L * W) or, of a target without CLS, (B, N, L * W), in raster
                order.
            masks: as the encoder was given.

        Returns:
            ``loss``, and what the log shows beside it: the cosine with the whitened target on
            visible patches, without gradient.
        """
        patches = masks.num_patches()
        target = gather_tokens(features[:, -patches:], masks.visible)
        if self.cls_token and features.shape[1] > patches:
            target = torch.cat([repeat_for(masks.visible, features[:, :1]), target], dim=1)
        target = target.float().unflatten(-1, aligned.shape[-2:])
        target = F.layer_norm(target, target.shape[-1:])
        per_token = self.loss_module(aligned[:, -target.shape[1]:], target)
        with torch.no_grad():
            visible = masks.visible.shape[1]
            cosine = self.cosine.as_measure(self.cosine(aligned[:, -visible:],
                                                        target[:, -visible:]))
        return {'loss': per_token.mean(), 'cos_visible': cosine.mean()}
