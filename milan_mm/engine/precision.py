# SPDX-License-Identifier: Apache-2.0
"""Mixed precision: which kind a machine is good at, on the CPU too."""
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn

from ..errors import MilanError
from ..registry import OPTIM_WRAPPERS

_CPU_INFO = Path('/proc/cpuinfo')
_CPU_BFLOAT16 = {'avx512_bf16', 'amx_bf16', 'bf16', 'svebf16'}  # x86's names, and Arm's
_DTYPES = dict(bfloat16=torch.bfloat16, float16=torch.float16)


class Precision(NamedTuple):
    """What the matrix products of a run are computed in, and why, for the log."""
    dtype: str
    reason: str


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """``torch.autocast`` around the loss, on CUDA and on the CPU, without a loss scaler.

    mmengine's ``AmpOptimWrapper`` needs CUDA, and scales the loss, which bfloat16 does not need.

    Args:
        dtype: of the matrix products; weights and their updates stay float32.
        **kwargs: arguments of ``OptimWrapper``.

    Raises:
        MilanError: for a type without the range that training needs.
    """

    def __init__(self, dtype: str = 'bfloat16', **kwargs: object) -> None:
        if dtype != 'bfloat16':
            raise MilanError(f"AutocastOptimWrapper takes dtype='bfloat16', got {dtype!r}; float16 "
                             'needs a loss scaler: use AmpOptimWrapper, on a CUDA device')
        super().__init__(**kwargs)
        self.dtype = _DTYPES[dtype]

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast(get_device(), self.dtype):
            yield


def set_amp(cfg: Config, asked: bool) -> None:
    """Puts mixed precision into a config where the user asks for it, and says which.

    A config that names ``AmpOptimWrapper`` by itself keeps it on CUDA, and is float32 on a CPU.
    """
    wrapper = cfg.optim_wrapper
    on_cuda = torch.cuda.is_available()
    if asked:
        choice = choose_precision()
        if on_cuda and (choice.dtype == 'float16' or wrapper.get('use_fsdp')):
            wrapper.update(type='AmpOptimWrapper', dtype=choice.dtype)
            wrapper.setdefault('loss_scale', 'dynamic')
        else:
            _drop_amp(wrapper)
            if choice.dtype != 'float32':
                wrapper.update(type='milan_mm.AutocastOptimWrapper', dtype=choice.dtype)
        print_log(f'mixed precision: {choice.dtype}, as {choice.reason}', logger='current')
    elif wrapper.get('type') == 'AmpOptimWrapper' and not on_cuda:
        _drop_amp(wrapper)
        print_log('mixed precision is off: the float16 of this config needs a CUDA device; --amp '
                  'takes bfloat16 where the CPU has it', logger='current')


def choose_precision() -> Precision:
    """bfloat16 where the hardware multiplies it fast; else float16 on CUDA, float32 on a CPU."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if torch.cuda.get_device_capability() >= (8, 0):
            return Precision('bfloat16', f'{name} has it, and no loss scaler is needed')
        return Precision('float16', f'{name} has no fast bfloat16; a loss scaler is used')
    return on_this_cpu(_CPU_INFO.read_text() if _CPU_INFO.is_file() else '')


def on_this_cpu(info: str) -> Precision:
    """What a CPU is good at by what it says of itself: the same on every start, unlike a timing.

    Args:
        info: as in Linux's ``/proc/cpuinfo``; '' where the system has none.
    """
    found = sorted(_CPU_BFLOAT16 & set(info.split()))
    if found:
        return Precision('bfloat16', f'this CPU multiplies it ({", ".join(found)})')
    return Precision('float32', 'this CPU has no instructions for bfloat16' if info else
                     'this system does not say whether its CPU has bfloat16')


def _drop_amp(wrapper: dict) -> None:
    wrapper['type'] = 'OptimWrapper'
    for key in ('dtype', 'loss_scale', 'use_fsdp'):
        wrapper.pop(key, None)
