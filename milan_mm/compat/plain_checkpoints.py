# SPDX-License-Identifier: Apache-2.0
"""mmengine saves its log histories as objects, which a restricted unpickler refuses.

``HistoryBuffer`` pickles methods along with its numbers (0.10.x), so that a training checkpoint
could only be resumed by running a pickle. This hook saves the numbers and makes objects of them
again when the checkpoint is loaded.
"""
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer

from ..registry import HOOKS
from .old_names import renew_scalars

_MARK = 'history_buffer'


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Keeps checkpoints to tensors and plain values, so that ``weights_only=True`` reads them."""
    priority = 'VERY_LOW'  # after the hooks that add to the checkpoint

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        for key, value in list(checkpoint.items()):
            checkpoint[key] = _to_plain(value)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
        for name, value in scalars.items():
            if isinstance(value, dict) and _MARK in value:
                log, count, length = value[_MARK]
                scalars[name] = HistoryBuffer(log.numpy(), count.numpy(), length)
        renew_scalars(scalars)


def _to_plain(value: Any) -> Any:
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return {_MARK: (torch.as_tensor(log), torch.as_tensor(count), value.max_length)}
    if isinstance(value, np.ndarray):
        return torch.as_tensor(value)
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (list, tuple):
        return type(value)(_to_plain(item) for item in value)
    if isinstance(value, dict):
        # Subclasses too (mmengine's ConfigDict, a state dict with _metadata): a plain copy.
        if all(isinstance(item, torch.Tensor) for item in value.values()):
            return value if type(value) is not dict and hasattr(value, '_metadata') else dict(value)
        return {key: _to_plain(item) for key, item in value.items()}
    return value
