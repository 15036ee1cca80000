# SPDX-License-Identifier: Apache-2.0
"""``init_cfg=dict(type='milan_mm.PretrainedViT', checkpoint=...)``: the hand-over in a config."""
import logging
from typing import Any

from mmengine.logging import print_log
from torch import nn

from ..checkpoints.handover import load_encoder
from ..checkpoints.vit import read_vit
from ..errors import MilanError
from ..registry import WEIGHT_INITIALIZERS
from .finetuning import FinetunedInPart


class StartsPretrained(nn.Module):
    """Mixed into a backbone, before mmengine's class.

    mmengine applies an initialiser it does not know by name before it initialises the children,
    which would overwrite what was loaded without a word. So the backbone hides its
    ``init_cfg=dict(type='milan_mm.PretrainedViT', ...)`` until all the rest is initialised.
    """

    init_cfg: Any

    def init_weights(self) -> None:
        kept = self.init_cfg
        kind = str(kept.get('type', '')) if isinstance(kept, dict) else ''
        if not kind.endswith('PretrainedViT'):
            super().init_weights()
            if not kind.endswith('Pretrained'):
                self._init_fresh()
            return
        self.init_cfg = None
        try:
            super().init_weights()
        finally:
            self.init_cfg = kept
        self._init_fresh()
        WEIGHT_INITIALIZERS.build(kept)(self)

    def _init_fresh(self) -> None:
        self.init_fresh()
        if isinstance(self, FinetunedInPart):
            self.reset_lora()

    def init_fresh(self) -> None:
        """The backbone's own initialisation, after mmengine's."""


@WEIGHT_INITIALIZERS.register_module()
class PretrainedViT:
    """Starts a backbone of this package from a pretrained ViT of any known format.

    Positions are resized to the backbone's grid. What the checkpoint cannot have (relative
    positions of windows, the norm after pooling) is named as new; anything else that is missing
    or left over is an error. The log says how many of the encoder's tensors came from the file.

    Args:
        checkpoint: see :func:`read_vit`. None: random weights, and a warning that says so.
        trust: see :func:`read_checkpoint`.

    Raises:
        MilanError: when called on a backbone that would overwrite the weights again.
    """

    def __init__(self, checkpoint: str | None = None, trust: bool = False) -> None:
        self.checkpoint, self.trust = checkpoint, trust

    def __call__(self, backbone: nn.Module) -> None:
        if not isinstance(backbone, StartsPretrained):
            raise MilanError(
                f'PretrainedViT serves the backbones of this package, got '
                f'{type(backbone).__name__}: mmengine would initialise its blocks again after the '
                "weights are loaded. Use type='milan_mm.MaskedVisionTransformer', or "
                'milan convert --to mmpretrain and init_cfg Pretrained')
        if self.checkpoint is None:
            print_log(f'{type(backbone).__name__} starts from random weights: no checkpoint was '
                      'given (milan train ... --init-from CHECKPOINT)', logger='current',
                      level=logging.WARNING)
            return
        vit = read_vit(self.checkpoint, self.trust)
        decoder = [f'neck.{key}' for key in vit.decoder]  # has served its purpose
        words = load_encoder(backbone, vit._replace(beside=vit.beside + decoder))
        print_log(words, logger='current')
