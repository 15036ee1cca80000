# SPDX-License-Identifier: Apache-2.0
"""A transform for configs whose runs are to meet images of NaN."""
import math
from pathlib import Path

from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class SpoilImages(BaseTransform):
    """After ``PackImageInputs``: makes the pixels of the images of these names NaN."""

    def __init__(self, names):
        self.names = names

    def transform(self, results):
        path = results['data_samples'].img_path
        results['inputs'] = results['inputs'].float()
        if '*' in self.names or Path(path).name in self.names:
            results['inputs'].fill_(math.nan)
        return results
