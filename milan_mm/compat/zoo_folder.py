# SPDX-License-Identifier: Apache-2.0
"""Where mmengine keeps the weights of its model zoos is told by a private function alone.

mmengine 0.10.7 and onedl-mmengine 0.10.12.
"""
from pathlib import Path

from mmengine.runner import checkpoint


def zoo_folder() -> Path:
    """The folder that the names of a model zoo's table are relative to."""
    return Path(checkpoint._get_mmengine_home())
