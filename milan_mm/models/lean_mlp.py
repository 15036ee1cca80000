# SPDX-License-Identifier: Apache-2.0
"""The MLP of a block, which keeps its hidden layer once instead of twice."""
import torch
from mmcv.cnn.bricks.transformer import FFN
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class LeanMLP(nn.Sequential):
    """The layers of mmcv's ``FFN``, under the same names.

    What follows the activation is computed again in the backward pass: one pass over numbers that
    are at hand, and no matrix product, as the computation stops where all that was missing is
    there. In a ViT-B on 1024 x 1024 pixels that saves 0.56 GiB an image.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As ``nn.Sequential``."""
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(x)  # type: ignore[no-untyped-call]
        linear, *activation = self[0]
        return checkpoint(nn.Sequential(*activation, *self[1:]), linear(x), use_reentrant=False,
                          preserve_rng_state=self.training)


def make_mlp_lean(ffn: nn.Module) -> None:
    """Takes mmcv's ``FFN`` of two linear maps so; leaves others as they are."""
    if isinstance(ffn, FFN) and ffn.num_fcs == 2:
        ffn.layers = LeanMLP(*ffn.layers)
