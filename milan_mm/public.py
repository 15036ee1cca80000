# SPDX-License-Identifier: Apache-2.0
"""What ``import milan_mm`` offers; importing it registers the components."""
from .compat.quiet_import import quiet_import

with quiet_import():
    from .compat.mmcv_ops import install as install_mmcv_ops
    install_mmcv_ops()  # first: mmpretrain imports what it can of mmcv.ops and mmdet
    from .compat.external_configs import install as install_external_configs
    install_external_configs()
    from .compat.old_names import register as register_old_names
    register_old_names()

    from .compat.plain_checkpoints import PlainCheckpointHook
    from .datasets import *  # noqa: F403
    from .engine.hooks import DescribeEncoderHook, RunSummaryHook, UnreadableImagesHook
    from .errors import MilanError
    from .evaluation.hook import FeatureEvalHook
    from .inference.encoders import get_model
    from .models import *  # noqa: F403
    from .models.pretrained import PretrainedViT

__all__ = [  # noqa: F405
    'get_model', 'MilanError', 'MILAN', 'MaskedVisionTransformer', 'PromptingDecoder',
    'MAEDecoder', 'CLIPTargetGenerator', 'PixelTargetGenerator', 'SemanticMaskGenerator',
    'RandomMaskGenerator', 'ReconstructionHead', 'CosineReconstructionLoss',
    'MSEReconstructionLoss', 'PretrainDataPreprocessor', 'ImageFolder', 'EpochSampler',
    'LoadPILImage', 'RandomResizedCropAndFlip', 'ResizeAndCenterCrop', 'PackImageInputs',
    'PlainCheckpointHook', 'DescribeEncoderHook', 'RunSummaryHook', 'UnreadableImagesHook',
    'FeatureEvalHook', 'PretrainedViT'
]
