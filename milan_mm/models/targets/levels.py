# SPDX-License-Identifier: Apache-2.0
"""A frozen CLIP image tower that gives several of its levels."""
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import MilanError
from ...registry import MODELS
from ...structures import TeacherOutput
from ..block_outputs import BlockOutputs
from .clip import CLIPTargetGenerator

# Where a tower's blocks are, in the order they run.
_BLOCKS = ('visual.transformer.resblocks', 'visual.trunk.blocks', 'trunk.blocks')


@MODELS.register_module()
class CLIPLevelsTargetGenerator(CLIPTargetGenerator):
    """The tokens as the last blocks of a CLIP tower leave them; the importance is its base's.

    The levels stand side by side in a target, from the lowest to the last block, each as wide as
    the tower: T is ``levels`` times its width. They are taken before the tower's final norm and
    projection, and nothing is normalised. :class:`milan_mm.MaskAlign` takes them apart again; to
    any other algorithm they are one wide target.

    Args:
        levels: how many of the last blocks.
        **kwargs: arguments of :class:`CLIPTargetGenerator`.

    Raises:
        MilanError: as the base does; or if the tower has fewer blocks.

    Attributes:
        target_levels: how many levels stand side by side in a target.
    """

    def __init__(self, levels: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        blocks = blocks_of(self.tower)
        if not 1 <= levels <= len(blocks):
            raise MilanError(f'levels must be from 1 to {len(blocks)}, the number of blocks of '
                             f'this tower; got {levels}')
        self.target_levels = levels
        self.dim = levels * block_width(blocks[-1])
        self.recorded = BlockOutputs(blocks[-levels:])

    def generate(self, images: Tensor) -> TeacherOutput:
        (_, importance), levels = self.recorded(super().generate, images)
        return TeacherOutput(torch.cat(levels, dim=-1), importance)


def blocks_of(tower: nn.Module) -> list[nn.Module]:
    """The transformer blocks of a tower, ``open_clip``'s own or timm's.

    Raises:
        MilanError: if it keeps them under no known name.
    """
    for path in _BLOCKS:
        try:
            return list(tower.get_submodule(path))
        except AttributeError:
            continue
    raise MilanError(f'{type(tower).__name__} keeps its blocks under none of {list(_BLOCKS)}, so '
                     'its levels are not known; use CLIPTargetGenerator, one level')


def block_width(block: nn.Module) -> int:
    """Channels of a block's tokens: those its first norm is for."""
    return next(len(m.weight) for m in block.modules() if isinstance(m, nn.LayerNorm))
