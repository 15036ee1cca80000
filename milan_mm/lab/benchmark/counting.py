# SPDX-License-Identifier: Apache-2.0
"""How much a step computes, and how fast this machine can multiply the matrices it has."""
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from ...compat.float32_products import linear

_aten = torch.ops.aten
_onednn = torch.ops.mkldnn._linear_pointwise  # see compat/float32_products.py


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


def _linear(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    return 2 * math.prod(x) * weight[0]


# torch's counter knows the fused attention of CUDA alone.
_ON_CPU = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _onednn: _linear,
}


def count_flops(step: Callable[[], Any]) -> float:
    """Floating point operations of a step, a multiplication and an addition being two.

    torch's attention of modules that are run without gradients is taken apart for it, which
    otherwise would not be counted.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False, custom_mapping=_ON_CPU) as counter:
            step()
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    return float(counter.get_total_flops())


def products(step: Callable[[], Any]) -> Counter:
    """The matrix products of a step: how often each (M, K, N) comes."""
    found: Counter = Counter()
    with _Note(found):
        step()
    return found


class _Note(TorchDispatchMode):
    """Counts matrix products by their shapes."""

    def __init__(self, found: Counter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        if func in (_aten.mm.default, _aten.addmm.default):
            a, b = args[-2:]
            self.found[a.shape[0], a.shape[1], b.shape[1]] += 1
        elif func is _onednn.default:
            a, b = args[:2]
            self.found[a[..., 0].numel(), a.shape[-1], b.shape[0]] += 1
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def peak_flops(shapes: Counter, dtype: torch.dtype, device: torch.device, repeats: int = 5,
               clock: Callable[[], float] = time.perf_counter) -> float:
    """Operations per second of products of these shapes alone, each at its best of some.

    Args:
        shapes: from :func:`products`.
        dtype: of both matrices.
        device: where.
        repeats: tries of each shape.
        clock: that which the step is measured by.
    """
    flops = seconds = 0.
    for (m, k, n), count in shapes.items():
        a, b = torch.randn(m, k, device=device), torch.randn(n, k, device=device)
        a, b = a.to(dtype), b.to(dtype)
        flops += 2. * m * k * n * count
        seconds += count * min(_seconds(a, b, clock) for _ in range(repeats + 1))
    return flops / seconds


def _seconds(a: torch.Tensor, b: torch.Tensor, clock: Callable[[], float]) -> float:
    if a.is_cuda:
        torch.cuda.synchronize()
    start = clock()
    linear(a, b)
    if a.is_cuda:
        torch.cuda.synchronize()
    return clock() - start
