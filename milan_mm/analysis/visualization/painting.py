# SPDX-License-Identifier: Apache-2.0
"""From predicted pixels of patches back to an image."""
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ...models import PixelTargetGenerator
from ...structures import pair


def paint(generator: PixelTargetGenerator, inputs: Tensor, predicted: Tensor,
          visible: Tensor) -> Tensor:
    """The image with its masked patches as they were predicted.

    Where the targets were normalised patch by patch, each patch gets the mean and the contrast of
    the true one, which the model was never asked for; as MAE's images are commonly shown.

    Args:
        generator: the one that gave the targets.
        inputs: (B, 3, H, W) normalised pixels.
        predicted: (B, N, T).
        visible: (B, V) patches that stay as they are.

    Returns:
        (B, 3, H, W) normalised pixels.
    """
    side = generator.patch_size
    true = PixelTargetGenerator(side, norm_pix=False).generate(inputs).features
    if generator.norm_pix:
        predicted = predicted * (true.var(dim=-1, keepdim=True) + 1e-6).sqrt()
        predicted = predicted + true.mean(dim=-1, keepdim=True)
    seen = torch.zeros(true.shape[:2], dtype=torch.bool, device=true.device)
    patches = torch.where(seen.scatter(1, visible, True)[..., None], true, predicted.float())
    return _untile(patches, pair(inputs.shape[-2:]), side)


def as_uint8(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised pixels (B, 3, H, W) as what they were before, (B, 3, H, W) uint8.

    Args:
        images: as the model gets them.
        mean, std: per channel, in 0..255.
    """
    shift, scale = (images.new_tensor(values).view(3, 1, 1) for values in (mean, std))
    return (images * scale + shift).round().clamp(0, 255).to(torch.uint8)


def _untile(patches: Tensor, size: tuple[int, int], side: int) -> Tensor:
    """Patches (B, N, side * side * 3), channels last, to images (B, 3, H, W)."""
    batch, number, _ = patches.shape
    columns = patches.view(batch, number, side * side, 3).permute(0, 3, 2, 1).flatten(1, 2)
    return F.fold(columns, size, side, stride=side)
