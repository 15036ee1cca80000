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
from .pretrained import PretrainedViT
from .prompting_decoder import PromptingDecoder
from .reconstruction_head import CosineReconstructionLoss, MSEReconstructionLoss, ReconstructionHead
from .simple_feature_pyramid import LN2d, SimpleFeaturePyramid
from .targets import (
    CachedTargetGenerator,
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
    'MILAN', 'MaskAlign', 'MaskedVisionTransformer', 'WindowedVisionTransformer', 'PretrainedViT',
    'PromptingDecoder', 'MAEDecoder', 'DynamicAlignment', 'SimpleFeaturePyramid', 'LN2d',
    'SemanticMaskGenerator', 'RandomMaskGenerator', 'BlockwiseMaskGenerator',
    'LeastImportantMaskGenerator', 'TargetGenerator', 'CachedTargetGenerator',
    'CLIPTargetGenerator',
    'CLIPLevelsTargetGenerator', 'ConcatTargetGenerator', 'EMATargetGenerator', 'EMATeacherHook',
    'EncoderTargetGenerator', 'PixelTargetGenerator', 'TimmTargetGenerator', 'ReconstructionHead',
    'AlignmentHead', 'CosineReconstructionLoss', 'MSEReconstructionLoss', 'SmoothL1AlignmentLoss'
]
