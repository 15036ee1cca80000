# SPDX-License-Identifier: Apache-2.0
"""Pixels as the target: MAE's, and the control of the paper's target ablation."""
from torch import Tensor

from ...registry import MODELS
from ...structures import TeacherOutput
from .base import TargetGenerator


@MODELS.register_module()
class PixelTargetGenerator(TargetGenerator):
    """The normalised pixels of each patch; no CLS target, no importance.

    Args:
        patch_size: side of the student's patches in pixels.
        norm_pix: whether each patch is brought to mean 0 and (unbiased) variance 1, as MAE's
            best models do.
        in_channels: of the images.
    """

    def __init__(self, patch_size: int = 16, norm_pix: bool = True, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.patch_size = patch_size
        self.norm_pix = norm_pix
        self.dim = in_channels * patch_size**2

    def set_grid(self, grid_size: tuple[int, int]) -> None:
        self.grid_size = grid_size  # which the images say, too

    def generate(self, images: Tensor) -> TeacherOutput:
        side = self.patch_size
        # (B, 3, rows, side, cols, side) -> (B, N, side * side * 3), channels last as in MAE
        tiles = images.unflatten(3, (-1, side)).unflatten(2, (-1, side))
        patches = tiles.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        if self.norm_pix:
            mean = patches.mean(dim=-1, keepdim=True)
            var = patches.var(dim=-1, keepdim=True)
            patches = (patches - mean) / (var + 1e-6).sqrt()
        return TeacherOutput(patches, patches.new_ones(patches.shape[:2]))
