# SPDX-License-Identifier: Apache-2.0
"""What every target generator is: frozen, in eval mode, matched to the student it teaches."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import MilanError
from ...structures import TeacherOutput, pair


class TargetGenerator(nn.Module):
    """Base of the target generators.

    A subclass builds its parts, sets :attr:`dim`, and writes :meth:`generate`; it may refine
    :meth:`match_student`. Whatever it holds stays frozen and in eval mode.

    Attributes:
        dim: T, width of a target.
        measures_importance: whether ``importance`` tells patches apart; a generator that does
            not gives equal weights, and cannot be the source for semantic masking.
        in_channels: of the images it takes; None for any number.
    """
    dim: int
    in_channels: int | None = None
    measures_importance = False

    def __init__(self) -> None:
        super().__init__()
        self.grid_size: tuple[int, int] | None = None

    def match_student(self, grid_size: tuple[int, int], pixel_mean: Sequence[float] | None,
                      pixel_std: Sequence[float] | None) -> None:
        """Prepares for images as the student gets them; called once, before training.

        Args:
            grid_size: rows and columns of the student's patches; the targets' must be the same.
            pixel_mean: what the data preprocessor subtracts, per channel, in 0..255; None if it
                does not normalise.
            pixel_std: what it divides by.

        Raises:
            MilanError: if the generator cannot give targets for such images.
        """
        self.grid_size = pair(grid_size)

    def set_grid(self, grid_size: tuple[int, int]) -> None:
        """Prepares for images of another size from now on; see phases of the random crop.

        Args:
            grid_size: rows and columns of the student's patches.

        Raises:
            MilanError: here; a generator that takes several sizes overrides it.
        """
        raise MilanError(f'{type(self).__name__} takes images of {self.grid_size} patches only and '
                         f'got {grid_size}: leave out phases of RandomResizedCropAndFlip')

    def generate(self, images: Tensor) -> TeacherOutput:
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, images: Tensor) -> TeacherOutput:
        """Targets of normalised pixels (B, 3, H, W)."""
        return self.generate(images)

    def freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> 'TargetGenerator':
        """A teacher is never in training mode."""
        return super().train(False)
