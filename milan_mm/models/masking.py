# SPDX-License-Identifier: Apache-2.0
"""Which patches are seen: pure functions over indices, and the registered generators."""
from typing import Optional

import torch
from torch import Tensor, nn

from .. import keyed_random
from ..errors import MilanError
from ..registry import MODELS
from ..structures import MaskIds


def num_visible(num_patches: int, mask_ratio: float) -> int:
    """V = int(N (1 - ratio)); ``int`` rounds towards zero, as the published code does."""
    return int(num_patches * (1 - mask_ratio))


def draw_visible(weights: Tensor, noise: Tensor, visible: int) -> MaskIds:
    """Draws patches without replacement, each next one in proportion to its weight.

    Equal in distribution to the paper's multinomial draws (Sec. 3.2): the ``visible`` largest of
    ``log(weight) + Gumbel noise`` (Gumbel top-k), in float32 whatever the weights come in.

    Args:
        weights: (B, N), not negative.
        noise: (B, N) uniform in (0, 1).
        visible: V.

    Returns:
        The ids, visible ones in the order drawn.
    """
    gumbel = -torch.log(-torch.log(noise.float()))
    order = torch.argsort(torch.log(weights.float()) + gumbel, dim=1, descending=True)
    return MaskIds(order[:, :visible], order[:, visible:])


class _MaskGenerator(nn.Module):
    """Base of the generators: holds the ratio, turns keys into noise."""

    #: whether the importance handed in must really have been measured
    needs_importance = False

    def __init__(self, mask_ratio: float = 0.75) -> None:
        super().__init__()
        if not 0 < mask_ratio < 1:
            raise MilanError(f'mask_ratio must be between 0 and 1, got {mask_ratio}: it is the '
                             'share of patches the encoder does not see')
        self.mask_ratio = mask_ratio

    def num_visible(self, num_patches: int) -> int:
        """V for this ratio.

        Raises:
            MilanError: if no patch would be visible, or none masked.
        """
        visible = num_visible(num_patches, self.mask_ratio)
        if not 0 < visible < num_patches:
            raise MilanError(f'mask_ratio {self.mask_ratio} leaves {visible} of {num_patches} '
                             'patches visible, and at least one must be visible and one masked; '
                             'change it or use smaller patches')
        return visible

    def weights(self, importance: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, importance: Tensor, keys: Optional[Tensor] = None) -> MaskIds:
        """Draws the masks of a batch.

        Args:
            importance: (B, N) from the teacher.
            keys: (B,) int64, one a picture; the masks are a function of them. None takes keys
                from torch's global generator.
        """
        batch, patches = importance.shape
        if keys is None:
            keys = torch.randint(2**63 - 1, (batch, ), device=importance.device)
        noise = keyed_random.uniform(keys, patches)
        return draw_visible(self.weights(importance), noise, self.num_visible(patches))


@MODELS.register_module()
class SemanticMaskGenerator(_MaskGenerator):
    """Important patches are likelier to be seen: the semantic aware sampling of Sec. 3.2.

    Args:
        mask_ratio: share of patches that are masked.
    """
    needs_importance = True

    def weights(self, importance: Tensor) -> Tensor:
        return importance


@MODELS.register_module()
class RandomMaskGenerator(_MaskGenerator):
    """Every patch is equally likely to be seen: MAE's sampling, the paper's control (Table 6).

    Args:
        mask_ratio: share of patches that are masked.
    """

    def weights(self, importance: Tensor) -> Tensor:
        return torch.ones_like(importance)
