# SPDX-License-Identifier: Apache-2.0
"""Target generators: one file a teacher."""
from .base import TargetGenerator
from .cached import CachedTargetGenerator
from .clip import CLIPTargetGenerator
from .concat import ConcatTargetGenerator
from .ema import EMATargetGenerator, EMATeacherHook
from .encoder import EncoderTargetGenerator
from .pixels import PixelTargetGenerator
from .timm_vit import TimmTargetGenerator

__all__ = ['TargetGenerator', 'CachedTargetGenerator', 'CLIPTargetGenerator',
           'ConcatTargetGenerator', 'EMATargetGenerator', 'EMATeacherHook',
           'EncoderTargetGenerator', 'PixelTargetGenerator', 'TimmTargetGenerator']
