# SPDX-License-Identifier: Apache-2.0
"""The packages around milan_mm, and which versions of them are installed.

Standard library only: the doctor reads this where everything else is broken.
"""
import importlib.metadata

__version__ = '0.2.0'

# What milan_mm itself imports: module -> distribution.
NEEDED = {name: name for name in ('torch', 'torchvision', 'open_clip', 'timm', 'safetensors',
                                  'numpy', 'PIL', 'matplotlib', 'tensorboard', 'jinja2', 'tqdm')}
NEEDED.update(open_clip='open_clip_torch', PIL='pillow')
# The two lineages of OpenMMLab, which share their modules' names.
FORKS = ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmpretrain', 'onedl-mmdetection',
         'onedl-mmsegmentation')
UPSTREAM = ('mmengine', 'mmengine-lite', 'mmcv', 'mmcv-lite', 'mmcv-full', 'mmpretrain', 'mmdet',
            'mmsegmentation')


def installed(distribution: str) -> str | None:
    """Its version, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
