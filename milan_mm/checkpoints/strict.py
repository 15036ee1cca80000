# SPDX-License-Identifier: Apache-2.0
"""Strict loading: every tensor accounted for, or an error that names the first which is not."""
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MilanError


def mismatch(own: dict[str, Any], given: dict[str, Any],
             called: Callable[[str], str] = str) -> str | None:
    """What keeps one state dict from being the other, in words; None if nothing does.

    Args:
        own: tensors, or shapes of tensors of floats, by name, as they should be.
        given: tensors as they are.
        called: the name of a tensor in the words, such as the one that it has in the file.
    """
    words = [f'{what} {len(names)} ({called(names[0])})' for what, names in
             (('missing', [k for k in own if k not in given]),
              ('left over', [k for k in given if k not in own])) if names]
    for key in (key for key in own if key in given):
        problem = _unlike(own[key], given[key])
        if problem:
            words.append(f'{called(key)} {problem}')
            break
    return ', '.join(words) or None


def load_strictly(module: nn.Module, state: dict[str, Tensor], misfit: str, mend: str) -> None:
    """Loads a state dict that has exactly the module's tensors.

    Args:
        module: to load into.
        state: as it was read, in any precision.
        misfit: how the error begins, such as 'FILE does not fit the image tower'.
        mend: how it ends: what to do then.

    Raises:
        MilanError: naming the first tensor that is missing, left over or unlike the module's.
    """
    problem = mismatch(module.state_dict(), state)
    if problem:
        raise MilanError(f'{misfit}: {problem}. {mend}')
    module.load_state_dict(state)


def _unlike(own: Any, given: Any) -> str | None:
    if not isinstance(given, Tensor) or given.is_meta or given.layout != torch.strided:
        return f'is no plain tensor in the checkpoint ({type(given).__name__})'
    shape = tuple(getattr(own, 'shape', own))
    if tuple(given.shape) != shape:
        return f'is {tuple(given.shape)} in the checkpoint and should be {shape}'
    floats = not isinstance(own, Tensor) or own.is_floating_point()
    if given.is_floating_point() != floats or given.is_complex():
        return (f'is of {given.dtype} in the checkpoint and should be of '
                f'{getattr(own, "dtype", "floating point")}')
    if floats and not is_finite(given) and (not isinstance(own, Tensor) or is_finite(own)):
        return 'holds NaN or infinity in the checkpoint'
    return None


def is_finite(values: Tensor) -> bool:
    """Whether none of them is NaN or infinite."""
    return bool(torch.isfinite(values.float() if values.element_size() < 2 else values).all())


def first_not_finite(value: Any, name: str = '') -> str | None:
    """In words, the first tensor at any depth that holds NaN or infinity; None if none does."""
    if isinstance(value, Tensor):
        bad = value.is_floating_point() and not is_finite(value)
        return f'{name} holds NaN or infinity' if bad else None
    parts: Any = value.items() if isinstance(value, Mapping) else ()
    if isinstance(value, (list, tuple)):
        parts = enumerate(value)
    for key, part in parts:
        if problem := first_not_finite(part, f'{name}.{key}' if name else str(key)):
            return problem
    return None
