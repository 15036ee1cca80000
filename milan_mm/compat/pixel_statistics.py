# SPDX-License-Identifier: Apache-2.0
"""mmengine's preprocessors keep to themselves whether they normalise pixels.

``ImgDataPreprocessor`` has ``mean`` and ``std`` only if it does, and says so in a private
attribute. Delete this file when it says so in public.
"""
from torch import nn


def normalises(preprocessor: nn.Module) -> bool:
    """Whether it subtracts a mean and divides by a standard deviation."""
    return getattr(preprocessor, '_enable_normalize', False)


def pixel_statistics(preprocessor: nn.Module) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, in 0..255; 0 and 1 if pixels stay as they are."""
    if not normalises(preprocessor):
        return [0.0] * 3, [1.0] * 3
    return preprocessor.mean.flatten().tolist(), preprocessor.std.flatten().tolist()
