# SPDX-License-Identifier: Apache-2.0
"""The parts of a training step; importing this registers them."""
from .encoder import MaskedVisionTransformer
from .mae_decoder import MAEDecoder
from .mask_align import AlignmentHead, DynamicAlignment, MaskAlign, SmoothL1AlignmentLoss
from .masking import (
    BlockwiseMaskGenerator,
    LeastImportantMaskGenerator,
    RandomMaskGenerator,
    SemanticMaskGenerator,
)
from .milan import MILAN
from .prompting_decoder import PromptingDecoder
from .reconstruction_head import CosineReconstructionLoss, MSEReconstructionLoss, ReconstructionHead
from .simple_feature_pyramid import SimpleFeaturePyramid
from .targets import (
    CLIPTargetGenerator,
    ConcatTargetGenerator,
    EMATargetGenerator,
    EMATeacherHook,
    EncoderTargetGenerator,
    PixelTargetGenerator,
    TargetGenerator,
    TimmTargetGenerator,
)
from .targets.levels import CLIPLevelsTargetGenerator
from .vit_det import WindowedVisionTransformer

__all__ = [
    'MaskAlign', 'DynamicAlignment', 'AlignmentHead', 'SmoothL1AlignmentLoss',
    'CLIPLevelsTargetGenerator',
    'MILAN', 'MaskedVisionTransformer', 'PromptingDecoder', 'MAEDecoder', 'RandomMaskGenerator',
    'SemanticMaskGenerator', 'LeastImportantMaskGenerator', 'BlockwiseMaskGenerator',
    'ReconstructionHead', 'CosineReconstructionLoss',
    'MSEReconstructionLoss', 'TargetGenerator', 'CLIPTargetGenerator', 'EncoderTargetGenerator',
    'PixelTargetGenerator', 'TimmTargetGenerator', 'ConcatTargetGenerator', 'EMATargetGenerator',
    'EMATeacherHook',
    'WindowedVisionTransformer', 'SimpleFeaturePyramid'
]
