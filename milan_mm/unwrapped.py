# SPDX-License-Identifier: Apache-2.0
"""The model within what DDP or FSDP put around it."""
from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module) -> Any:
    """The model itself; one that nothing is around as it is."""
    return model.module if is_model_wrapper(model) else model
