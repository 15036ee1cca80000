# SPDX-License-Identifier: Apache-2.0
"""torch's attention takes a fused kernel without gradients that torch 2.5 cannot compile.

``nn.MultiheadAttention``, of which open_clip's towers are made, calls an operator there for which
no shapes are known where the number of images is left open (2.14 can). The way around it computes
the same.
"""
import torch


def forbid_mha_fast_path() -> None:
    """Has every ``nn.MultiheadAttention`` of the process take the operators of training."""
    torch.backends.mha.set_fastpath_enabled(False)
