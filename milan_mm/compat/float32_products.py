# SPDX-License-Identifier: Apache-2.0
"""MKL multiplies float32 matrices with AVX2 where the processor is not Intel's.

torch takes MKL for linear maps; oneDNN, which is in torch too, uses AVX-512 on AMD's from Zen 4 on
and runs at twice the rate there (torch 2.5 to 2.14). The products are float32's in both; sums are
taken in another order.
"""
from pathlib import Path
from typing import Any

import torch
from mmcv.cnn.bricks.wrappers import Linear as MMCVLinear  # of feed-forward networks
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def onednn_is_faster(info: str) -> bool:
    """Whether a CPU is of the kind described, by what it says of itself.

    Args:
        info: as in Linux's ``/proc/cpuinfo``; '' where the system has none.
    """
    words = set(info.split())
    return 'AuthenticAMD' in words and 'avx512f' in words


_INFO = Path('/proc/cpuinfo')
_FASTER = (torch.backends.mkldnn.is_available()
           and hasattr(torch.ops.mkldnn, '_linear_pointwise')
           and onednn_is_faster(_INFO.read_text() if _INFO.is_file() else ''))


def applies(x: Tensor) -> bool:
    """Whether :func:`linear` of such a tensor is oneDNN's."""
    return (_FASTER and x.dtype == torch.float32 and x.device.type == 'cpu'
            and not torch.is_autocast_enabled('cpu'))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear`` by the faster library.

    Args:
        x: (..., C).
        weight: (D, C).
        bias: (D, ).

    Returns:
        (..., D).
    """
    if not applies(x):
        return F.linear(x, weight, bias)
    if not torch.is_grad_enabled():
        return _product(x, weight, bias)
    return _Linear.apply(x, weight, bias)


class Linear(nn.Linear):
    """An ``nn.Linear`` that trains by :func:`linear`, and is exported as what it is."""

    def forward(self, x: Tensor) -> Tensor:
        exported = not torch.is_grad_enabled() and (
            torch.compiler.is_compiling() or torch.jit.is_tracing())
        return (F.linear if exported else linear)(x, self.weight, self.bias)


def use_linear(module: nn.Module) -> None:
    """Makes every ``nn.Linear`` below a module, where that is faster here, a :class:`Linear`."""
    for part in module.modules() if _FASTER else ():
        if type(part) in (nn.Linear, MMCVLinear):
            part.__class__ = Linear  # the same parameters


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if torch.compiler.is_compiling():
        return torch.ops.milan_mm.product(x, weight, bias)
    return _of_onednn(x, weight, bias)


def _of_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'none', [], '')


# inductor knows oneDNN's operation for weights that are constants alone; of this one it knows
# nothing but what comes out.
_LIBRARY = torch.library.Library('milan_mm', 'FRAGMENT')
_LIBRARY.define('product(Tensor x, Tensor weight, Tensor? bias) -> Tensor')
_LIBRARY.impl('product', _of_onednn, 'CPU')


def _shape(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


torch.library.register_fake('milan_mm::product', _shape)


class _Linear(torch.autograd.Function):
    """The map and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)
        to_x = _product(grad, weight.t()) if ctx.needs_input_grad[0] else None
        to_weight = _product(rows.t(), x.flatten(0, -2).t()) if ctx.needs_input_grad[1] else None
        to_bias = rows.sum(0) if ctx.has_bias and ctx.needs_input_grad[2] else None
        return to_x, to_weight, to_bias
