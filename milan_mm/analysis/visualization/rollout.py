# SPDX-License-Identifier: Apache-2.0
"""Where the CLS token of a ViT gets what it says from: attention rollout."""
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..activations import on_attention


@torch.no_grad()
def layer_attentions(backbone: nn.Module, images: Tensor) -> list[Tensor]:
    """The attention of each block, averaged over its heads.

    Only the mean over heads is kept: L · B · (1 + N)² numbers.

    Args:
        backbone: a ViT of this package, in eval mode.
        images: (B, 3, H, W) normalised pixels.

    Returns:
        (B, 1 + N, 1 + N) for each block, the first one first; every row sums to 1.
    """
    maps: list[Tensor] = []
    with on_attention(backbone.layers, lambda _, attention: maps.append(attention.mean(dim=1))):
        backbone(images)
    return maps


def rollout(attentions: Sequence[Tensor]) -> Tensor:
    """How much each token of the input takes part in each token of the output.

    Abnar & Zuidema, "Quantifying attention flow in transformers" (ACL 2020, Sec. 3): the product
    of the blocks' attentions, half of each being the identity that stands for the residual
    connection. MLPs, values and what the heads disagree about are left out, so it is a rough
    map: where information *can* come from.

    Args:
        attentions: (B, L, L) of each block, the first one first; rows sum to 1.

    Returns:
        (B, L, L); rows sum to 1.
    """
    identity = torch.eye(attentions[0].shape[-1], device=attentions[0].device)
    rolled = identity.expand_as(attentions[0])
    for attention in attentions:
        rolled = (attention + identity) / 2 @ rolled
    return rolled


def cls_rollout(backbone: nn.Module, images: Tensor) -> Tensor:
    """(B, N) share of each patch in what CLS says at the end; each row sums to 1.

    What CLS keeps of itself, through the residual connections and its own attention, is left out,
    and so is what it has from registers. Without CLS: in the mean of the patches.
    """
    rolled, patches = rollout(layer_attentions(backbone, images)), math.prod(backbone.grid_size)
    row = (rolled[:, 0] if rolled.shape[1] > patches else rolled.mean(dim=1))[:, -patches:]
    return row / row.sum(dim=1, keepdim=True)
