# SPDX-License-Identifier: Apache-2.0
"""A ViT of timm as teacher: DINO, DINOv2 with or without registers, DINOv3, MAE, supervised."""
from typing import Any

from ...registry import MODELS
from .timm_towers import TimmTower
from .timm_weights import load_timm_vit
from .tower import TowerTargetGenerator, check_options


@MODELS.register_module()
class TimmTargetGenerator(TowerTargetGenerator):
    """Features of every token of a frozen ``VisionTransformer`` or ``Eva`` of timm.

    The features are the tokens after the final norm: first the pooled one (CLS), then the patches.
    Registers are left out. What the importance is follows from what the model pools by: see
    :class:`~milan_mm.models.targets.timm_towers.TimmTower`.

    Args:
        model: name in timm, such as 'vit_base_patch16_224.dino' or
            'vit_base_patch14_reg4_dinov2.lvd142m'. With weights in a file, what stands behind the
            point says which pixel statistics are its own. Not needed with a folder.
        pretrained: a tag of timm for that model, such as 'dino' (downloaded at first use); or a
            file (``.pth``, ``.safetensors``) in timm's names or in those timm itself converts,
            such as DINOv2's as published; or a folder as timm saves it for the hub, or of a
            Hugging Face DINOv2, with or without registers. None leaves the weights random, for
            tests.
        normalize: 'own' re-normalises the student's pixels with the model's mean and standard
            deviation; 'student' feeds them as they are.
        amp: see :class:`TowerTargetGenerator`.
        model_args: further arguments of ``timm.create_model``, such as ``dict(img_size=224)``.
        trust: see :func:`milan_mm.checkpoints.io.read_checkpoint`.

    Raises:
        MilanError: if the model is unknown, is no plain ViT, or the weights do not fit it.
    """

    def __init__(self,
                 model: str | None = None,
                 pretrained: str | None = None,
                 normalize: str = 'own',
                 amp: str | None = None,
                 model_args: dict[str, Any] | None = None,
                 trust: bool = False) -> None:
        check_options(normalize, amp)  # before anything is loaded
        found = load_timm_vit(model, pretrained, model_args, trust)
        super().__init__(TimmTower(found.vit, found.name, mean=found.mean, std=found.std),
                         normalize, amp)
