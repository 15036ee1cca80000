# SPDX-License-Identifier: Apache-2.0
"""Comparing predictions with targets: per-token losses and the head that averages them."""
import math

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import MilanError
from ..registry import MODELS
from ..structures import MaskIds


@MODELS.register_module()
class CosineReconstructionLoss(nn.Module):
    """2 - 2 cos(prediction, target) of each token (Eq. 4); no other normalisation."""

    measure = 'cos'

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """pred and target (B, L, T) give (B, L), computed in float32 under autocast too."""
        pred = F.normalize(pred.float(), dim=-1)
        target = F.normalize(target.float(), dim=-1)
        return 2 - 2 * (pred * target).sum(dim=-1)

    def as_measure(self, loss: Tensor) -> Tensor:
        return 1 - loss / 2


@MODELS.register_module()
class MSEReconstructionLoss(nn.Module):
    """Squared error of each token, averaged over channels: MAE's loss."""

    measure = 'mse'

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """pred and target (B, L, T) give (B, L), computed in float32 under autocast too."""
        return (pred.float() - target.float()).square().mean(dim=-1)

    def as_measure(self, loss: Tensor) -> Tensor:
        return loss


@MODELS.register_module()
class ReconstructionHead(BaseModule):
    """The mean loss over tokens.

    Args:
        loss: a loss of one token, as a config or a module.
        tokens: 'all' for CLS, visible and masked tokens, as MILAN does; 'masked' for masked
            ones only, as MAE does.
        seen_weight: weight in that mean of each token that the encoder has computed (CLS, visible),
            where a masked one has 1. 1 is the paper's.
    """

    def __init__(self, loss: dict | nn.Module, tokens: str = 'all',
                 seen_weight: float = 1.) -> None:
        super().__init__()
        if tokens not in ('all', 'masked'):
            raise MilanError(f"tokens must be 'all' or 'masked', got {tokens!r}")
        number = isinstance(seen_weight, (int, float)) and 0 < seen_weight < math.inf
        if not number or (tokens == 'masked' and seen_weight != 1):
            raise MilanError("seen_weight is a number above 0, for tokens='all' only, got "
                             f"{seen_weight!r} with tokens={tokens!r}")
        self.tokens, self.seen_weight = tokens, seen_weight
        self.loss_module = loss if isinstance(loss, nn.Module) else MODELS.build(loss)

    def loss(self, pred: Tensor, features: Tensor, masks: MaskIds) -> dict[str, Tensor]:
        """Compares.

        Args:
            pred: (B, 1 + N, T) in the order CLS, visible, masked.
            features: (B, 1 + N, T) or, of a target without CLS, (B, N, T), in raster order.
            masks: as the decoder was given.

        Returns:
            ``loss``, and what the log shows beside it: the measure on visible and on masked
            patches, without gradient.
        """
        target = masks.arrange(features)
        if target.shape[1] < pred.shape[1]:
            pred = pred[:, 1:]
        per_token = self.loss_module(pred, target)
        visible, masked = masks.visible.shape[1], masks.masked.shape[1]
        _, on_visible, on_masked = per_token.split(
            [per_token.shape[1] - visible - masked, visible, masked], dim=1)
        name = self.loss_module.measure
        with torch.no_grad():
            shown = {
                f'{name}_visible': self.loss_module.as_measure(on_visible).mean(),
                f'{name}_masked': self.loss_module.as_measure(on_masked).mean()
            }
        if self.tokens == 'masked':
            return {'loss': on_masked.mean(), **shown}
        if self.seen_weight == 1:
            return {'loss': per_token.mean(), **shown}
        seen = per_token.shape[1] - masked
        sums = self.seen_weight * per_token[:, :seen].sum() + on_masked.sum()
        return {'loss': sums / (len(per_token) * (self.seen_weight * seen + masked)), **shown}

    def patch_errors(self, pred: Tensor, features: Tensor) -> Tensor:
        """The loss of each patch, (B, N), for whoever looks at a trained model.

        Args:
            pred: (B, 1 + N, T), CLS first, in raster order.
            features: (B, 1 + N, T) or, of a target without CLS, (B, N, T), in raster order.
        """
        return self.loss_module(pred[:, 1:], features[:, 1 - pred.shape[1]:])
