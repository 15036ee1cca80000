# SPDX-License-Identifier: Apache-2.0
"""A frozen ViT as teacher: what all such teachers share, whoever's modules do the computing."""
import math
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import MilanError
from ...structures import TeacherOutput, pair
from .base import TargetGenerator

_AMP = {None: None, 'bf16': torch.bfloat16, 'fp16': torch.float16, 'fp32': torch.float32}


class Tower(nn.Module):
    """What a teacher must know of its ViT.

    Attributes:
        dim: T.
        patch_size: side of a patch in pixels.
        grid_size: rows and columns of patches the positions are for.
        mean, std: pixel statistics the tower was trained with, in 0..1.
        first_positions, first_grid: what it came with, from the first change of grid on.
    """
    first_positions: Tensor | None
    dim: int
    patch_size: int
    grid_size: tuple[int, int]
    mean: Sequence[float]
    std: Sequence[float]

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('first_positions', None, persistent=False)
        self.first_grid: tuple[int, int] | None = None

    def at_first(self, positions: Tensor | None) -> tuple[Any, tuple[int, int]]:
        """The positions and the grid that the tower came with, given those of now.

        So :meth:`set_grid` gives the same positions whatever grids there were in between.
        """
        if self.first_grid is None:
            self.first_grid = self.grid_size
            self.first_positions = None if positions is None else positions.detach().clone()
        return self.first_positions, self.first_grid

    def input_size(self, grid_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width in pixels of an image that has this grid."""
        return grid_size[0] * self.patch_size, grid_size[1] * self.patch_size

    def set_grid(self, grid_size: tuple[int, int]) -> None:
        """Interpolates the positions for another grid."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (B, 3, H, W) give features (B, 1 + N, T), CLS first, and importance (B, N)."""
        raise NotImplementedError


class TowerTargetGenerator(TargetGenerator):
    """Base of the teachers that are a ViT: grid, pixels, precision.

    Args:
        tower: the ViT, its weights loaded.
        normalize: 'student' feeds the pixels as the student gets them; 'own' re-normalises them
            with the tower's own mean and standard deviation.
        amp: 'bf16', 'fp16' or 'fp32' to run the teacher in that precision whatever the student
            runs in; None follows the student.

    Raises:
        MilanError: for other values.
    """
    measures_importance = True
    in_channels = 3

    def __init__(self, tower: Tower, normalize: str = 'student',
                 amp: str | None = None) -> None:
        super().__init__()
        check_options(normalize, amp)
        self.normalize = normalize
        self.amp = _AMP[amp]
        self.register_buffer('scale', torch.ones(3, 1, 1), persistent=False)
        self.register_buffer('shift', torch.zeros(3, 1, 1), persistent=False)
        self.tower = tower
        self.dim = tower.dim
        self.grid_size = tower.grid_size
        self.freeze()

    def match_student(self, grid_size: tuple[int, int], pixel_mean: Sequence[float] | None,
                      pixel_std: Sequence[float] | None) -> None:
        """Makes the tower's token grid the student's, and its input the student's pixels.

        A tower of another patch size or position grid is fed a resized image, and its
        positions are interpolated where its grid was another.
        """
        super().match_student(grid_size, pixel_mean, pixel_std)
        if self.grid_size != self.tower.grid_size:
            print_log(
                f'Teacher: position grid {self.tower.grid_size} interpolated to the student\'s '
                f'{self.grid_size}; images are fed at {self.tower.input_size(grid_size)}',
                logger='current')
        self.set_grid(grid_size)
        if self.normalize != 'student':
            self._match_pixels(pixel_mean, pixel_std)

    def set_grid(self, grid_size: tuple[int, int]) -> None:
        self.grid_size = pair(grid_size)
        self.tower.set_grid(self.grid_size)
        self.freeze()

    def _match_pixels(self, pixel_mean: Sequence[float] | None,
                      pixel_std: Sequence[float] | None) -> None:
        if pixel_mean is None or pixel_std is None:
            raise MilanError(f"normalize='{self.normalize}' must know the data preprocessor's "
                             'mean and std, and it has none; set them, or use '
                             "normalize='student'")
        def as_buffer(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32).view(3, 1, 1)

        mean, std = as_buffer(pixel_mean) / 255, as_buffer(pixel_std) / 255
        tower_mean, tower_std = as_buffer(self.tower.mean), as_buffer(self.tower.std)
        self.scale.copy_(std / tower_std)
        self.shift.copy_((mean - tower_mean) / tower_std)

    def generate(self, images: Tensor) -> TeacherOutput:
        if self.normalize != 'student':
            images = images * self.scale + self.shift
        size = self.tower.input_size(self.tower.grid_size)
        if tuple(images.shape[-2:]) != size:
            images = F.interpolate(
                images, size, mode='bicubic', align_corners=False, antialias=True)
        if self.amp is None:
            return TeacherOutput(*self.tower(images))
        with torch.autocast(images.device.type, self.amp, enabled=self.amp != torch.float32):
            return TeacherOutput(*self.tower(images))


def check_options(normalize: str, amp: str | None,
                  known: Sequence[str] = ('student', 'own')) -> None:
    """Raises MilanError for a value that no teacher has."""
    if normalize not in known:
        raise MilanError(f'normalize must be {" or ".join(map(repr, known))}, got {normalize!r}')
    if amp not in _AMP:
        raise MilanError(f'amp must be one of {list(_AMP)}, got {amp!r}')


def cls_importance(query: Tensor, keys: Tensor) -> Tensor:
    """The attention of one query over all tokens, the only row that is ever needed.

    Args:
        query: (B or 1, heads, 1, head width).
        keys: (B, heads, L, head width).

    Returns:
        (B, L) float32: softmax over the L tokens, averaged over heads.
    """
    with torch.autocast(query.device.type, enabled=False):
        scores = query.float() @ keys.float().transpose(-2, -1) / math.sqrt(query.shape[-1])
        return scores.softmax(dim=-1).mean(dim=1).squeeze(1)
