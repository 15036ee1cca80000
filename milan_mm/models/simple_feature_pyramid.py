# SPDX-License-Identifier: Apache-2.0
"""A pyramid out of a plain ViT's last map (ViTDet, arXiv 2203.16527, Sec. 3)."""
from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..errors import MilanError
from ..registry import MODELS


@MODELS.register_module()
class LN2d(nn.LayerNorm):
    """LayerNorm over the channels of a map, for ``norm_cfg=dict(type='milan_mm.LN2d')``.

    Args:
        num_channels: C.
        eps: added to the variance.
    """

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__(num_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Maps of several resolutions, all from one map, each by convolutions of its own.

    Args:
        in_channels: D of the backbone.
        out_channels: channels of every map.
        scales: resolution of the maps by that of the backbone's: 4, 2, 1 or 0.5.
        num_extra: maps besides, each half as fine as the one before it (of stride 64, for the RPN).
        norm_cfg: config of the norms; by default :class:`LN2d`.
        init_cfg: see ``BaseModule``.
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int = 256,
                 scales: Sequence[float] = (4, 2, 1, 0.5),
                 num_extra: int = 1,
                 norm_cfg: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        norm_cfg = norm_cfg or dict(type='milan_mm.LN2d', eps=1e-6)
        self.num_extra = num_extra
        self.stages = nn.ModuleList()
        for scale in scales:
            resample, channels = _resample(scale, in_channels, norm_cfg)
            self.stages.append(nn.Sequential(
                *resample,
                nn.Conv2d(channels, out_channels, 1, bias=False),
                build_norm_layer(norm_cfg, out_channels)[1],
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                build_norm_layer(norm_cfg, out_channels)[1]))

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The last of ``inputs``, (B, D, H, W), to one map (B, C, ., .) a scale, finest first."""
        maps = [stage(inputs[-1]) for stage in self.stages]
        for _ in range(self.num_extra):
            maps.append(F.max_pool2d(maps[-1], 1, stride=2))
        return tuple(maps)


def _resample(scale: float, channels: int, norm_cfg: dict) -> tuple[list, int]:
    """Layers from the backbone's resolution to another, and the channels that come out."""
    if scale == 4:
        return [nn.ConvTranspose2d(channels, channels // 2, 2, stride=2),
                build_norm_layer(norm_cfg, channels // 2)[1], nn.GELU(),
                nn.ConvTranspose2d(channels // 2, channels // 4, 2, stride=2)], channels // 4
    if scale == 2:
        return [nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)], channels // 2
    if scale == 1:
        return [], channels
    if scale == 0.5:
        return [nn.MaxPool2d(2, stride=2)], channels
    raise MilanError(f'the scales of a pyramid are 4, 2, 1 or 0.5, got {scale!r}')
