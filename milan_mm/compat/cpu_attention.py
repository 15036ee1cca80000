# SPDX-License-Identifier: Apache-2.0
"""torch's fused attention on a CPU is far slower backward in bfloat16 than in float32.

Of 17 to 65 tokens 4 to 11 times as slow, of 197 1.3 times; from 400 on it is faster (torch 2.5 to
2.14, a processor with avx512_bf16 and no AMX). With patches masked that was 44 % of a step.
"""
import contextlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

_SHORT = 400  # keys, below which float32 is faster


def attention(query: Tensor, key: Tensor, value: Tensor, dropout_p: float = 0.) -> Tensor:
    """``F.scaled_dot_product_attention``, computed in the precision that trains fastest.

    Args:
        query: (B, heads, M, C).
        key, value: (B, heads, L, C).
        dropout_p: probability that a weight is dropped.

    Returns:
        (B, heads, M, C) in the query's type.
    """
    slow = (query.dtype == torch.bfloat16 and query.device.type == 'cpu'
            and key.shape[-2] < _SHORT and torch.is_grad_enabled())
    if not slow:
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout_p)
    with torch.autocast('cpu', enabled=False):
        mixed = F.scaled_dot_product_attention(query.float(), key.float(), value.float(),
                                               dropout_p=dropout_p)
    return mixed.to(query.dtype)


def use_attention(module: nn.Module) -> None:
    """Has every attention of mmpretrain's below a module take :func:`attention`."""
    for part in module.modules():
        if getattr(part, 'scaled_dot_product_attention', None) is F.scaled_dot_product_attention:
            part.scaled_dot_product_attention = attention


def unfused_attention(half: bool) -> contextlib.AbstractContextManager:
    """For models of others that are trained in bfloat16: attention by products and a softmax.

    Args:
        half: whether they are; else nothing changes.
    """
    return sdpa_kernel(SDPBackend.MATH) if half else contextlib.nullcontext()
