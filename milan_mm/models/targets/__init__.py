# SPDX-License-Identifier: Apache-2.0
"""Target generators: one file a teacher."""
from .base import TargetGenerator
from .clip import CLIPTargetGenerator
from .pixels import PixelTargetGenerator

__all__ = ['TargetGenerator', 'CLIPTargetGenerator', 'PixelTargetGenerator']
