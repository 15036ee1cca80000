# SPDX-License-Identifier: Apache-2.0
"""What the blocks of a ViT give on the way to its output."""
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn


class BlockOutputs:
    """Notes the outputs of some blocks while a ViT runs, whoever wrote its forward pass.

    Outside a call nothing is kept, so that evaluating the same ViT in between costs no memory.

    Args:
        blocks: modules that give one tensor each, in the order they run in.
    """

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        self.kept: list[Tensor] | None = None
        for block in blocks:
            block.register_forward_hook(self._keep)

    def __call__(self, run: Callable, *args: Any) -> tuple[Any, list[Tensor]]:
        """What ``run(*args)`` gives, and what each of the blocks gave meanwhile."""
        self.kept = []
        output = run(*args)
        kept, self.kept = self.kept, None
        return output, kept

    def _keep(self, block: nn.Module, inputs: Any, output: Tensor) -> None:
        if self.kept is not None:
            self.kept.append(output)
