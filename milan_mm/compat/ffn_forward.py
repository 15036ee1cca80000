# SPDX-License-Identifier: Apache-2.0
"""mmcv wraps ``FFN.forward`` in a check of old argument names that inspects itself at every call.

torch.compile cannot trace ``inspect.getfullargspec`` (torch 2.5, mmcv 2.1), and nothing here uses
the old names.
"""
from types import MethodType

from mmcv.cnn.bricks.transformer import FFN
from torch import nn


def make_ffn_traceable(module: nn.Module) -> None:
    """Lets every FFN below a module call its own forward without the check."""
    plain = getattr(FFN.forward, '__wrapped__', None)
    if plain is None:
        return
    for part in module.modules():
        if isinstance(part, FFN):
            part.forward = MethodType(plain, part)
