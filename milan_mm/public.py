# SPDX-License-Identifier: Apache-2.0
"""What ``import milan_mm`` offers; importing it registers the components.

Together with ``milan_mm.registry`` this is the public API; everything else may change.
"""
from .compat.quiet_import import quiet_import

with quiet_import():
    from .compat.mmcv_ops import install as install_mmcv_ops
    install_mmcv_ops()  # first: mmpretrain imports what it can of mmcv.ops and mmdet
    from .compat.external_configs import install as install_external_configs
    install_external_configs()
    from .compat.inferencers import install as install_inferencers
    install_inferencers()
    from .compat.old_names import register as register_old_names
    register_old_names()

    from . import datasets, models
    from .api import embed, pretrain
    from .checkpoints.zoo import list_models
    from .compat.plain_checkpoints import PlainCheckpointHook
    from .datasets import *  # noqa: F403
    from .engine.bad_numbers import BadNumbersHook
    from .engine.console import ProgressHook
    from .engine.hooks import DescribeEncoderHook, RunSummaryHook, UnreadableImagesHook
    from .engine.layer_decay import LayerDecayOptimWrapperConstructor
    from .engine.loops import ExactEpochLoop, ExactIterLoop
    from .engine.precision import AutocastOptimWrapper
    from .engine.saving import WholeCheckpointHook
    from .engine.signals import StopOnSignalHook
    from .engine.target_cache import TargetCacheHook
    from .errors import MilanError
    from .evaluation.hits_hook import ImageHitsHook
    from .evaluation.hook import FeatureEvalHook
    from .inference.encoders import get_model
    from .models import *  # noqa: F403
    from .positions import sincos_positions
    from .structures import MaskIds, TeacherOutput

__all__ = [
    'pretrain', 'get_model', 'list_models', 'embed', 'MilanError',
    *models.__all__, *datasets.__all__,
    'LayerDecayOptimWrapperConstructor', 'BadNumbersHook', 'PlainCheckpointHook',
    'DescribeEncoderHook', 'ProgressHook', 'RunSummaryHook', 'UnreadableImagesHook',
    'WholeCheckpointHook', 'TargetCacheHook',
    'StopOnSignalHook', 'FeatureEvalHook', 'ImageHitsHook', 'AutocastOptimWrapper',
    'ExactEpochLoop', 'ExactIterLoop',
    'TeacherOutput', 'MaskIds', 'sincos_positions',  # what parts of one's own are made of
]
