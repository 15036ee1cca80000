# SPDX-License-Identifier: Apache-2.0
"""Backbones whose pretrained weights are loaded last, where nothing overwrites them."""
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn


class StartsPretrained(nn.Module):
    """Mixed into a backbone, before mmengine's class.

    mmengine applies an initialiser it does not know by name before it initialises the children,
    which would overwrite what was loaded without a word. So the backbone hides its
    ``init_cfg=dict(type='milan_mm.PretrainedViT', ...)`` until all the rest is initialised.
    """

    def init_weights(self) -> None:
        kept = self.init_cfg
        kind = str(kept.get('type', '')) if isinstance(kept, dict) else ''
        if not kind.endswith('PretrainedViT'):
            super().init_weights()
            if not kind.endswith('Pretrained'):
                self.init_fresh()
            return
        self.init_cfg = None
        try:
            super().init_weights()
        finally:
            self.init_cfg = kept
        self.init_fresh()
        WEIGHT_INITIALIZERS.build(kept)(self)

    def init_fresh(self) -> None:
        """The backbone's own initialisation, after mmengine's."""
