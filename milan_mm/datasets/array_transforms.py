# SPDX-License-Identifier: Apache-2.0
"""A bridge to transforms of other packages, which work on arrays."""
from collections.abc import Callable, Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose
from PIL import Image

from ..registry import TRANSFORMS


@TRANSFORMS.register_module()
class OnBGRArray(BaseTransform):
    """Runs transforms that expect OpenCV's images on a Pillow image.

    This package's transforms work on Pillow images (RGB), OpenMMLab's on arrays (H, W, 3) in
    BGR, and some of them (colour, contrast) weigh the channels. Nothing is resampled here.

    Args:
        transforms: of mmcv or mmpretrain, by scoped names (``mmpretrain.RandAugment``).
    """

    def __init__(self, transforms: Sequence[dict | Callable]) -> None:
        self.transforms = Compose(transforms)

    def transform(self, results: dict) -> dict:
        bgr = np.ascontiguousarray(np.asarray(results['img'])[..., ::-1])
        results = self.transforms(dict(results, img=bgr))
        image = Image.fromarray(np.ascontiguousarray(results['img'][..., ::-1]))
        return dict(results, img=image, img_shape=image.size[::-1])
