# SPDX-License-Identifier: Apache-2.0
"""The parts of a training step; importing this registers them."""
from .encoder import MaskedVisionTransformer
from .mae_decoder import MAEDecoder
from .masking import RandomMaskGenerator, SemanticMaskGenerator
from .milan import MILAN
from .prompting_decoder import PromptingDecoder
from .reconstruction_head import CosineReconstructionLoss, MSEReconstructionLoss, ReconstructionHead
from .simple_feature_pyramid import SimpleFeaturePyramid
from .targets import CLIPTargetGenerator, PixelTargetGenerator, TargetGenerator
from .vit_det import WindowedVisionTransformer

__all__ = [
    'MILAN', 'MaskedVisionTransformer', 'PromptingDecoder', 'MAEDecoder', 'RandomMaskGenerator',
    'SemanticMaskGenerator', 'ReconstructionHead', 'CosineReconstructionLoss',
    'MSEReconstructionLoss', 'TargetGenerator', 'CLIPTargetGenerator', 'PixelTargetGenerator',
    'WindowedVisionTransformer', 'SimpleFeaturePyramid'
]
