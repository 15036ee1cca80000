# SPDX-License-Identifier: Apache-2.0
"""Images, from a folder to a batch; importing this registers the parts."""
from .array_transforms import OnBGRArray
from .image_folder import ImageFolder
from .label_maps import LabelMapFolder, LoadLabelMap
from .loading import LoadBGRImage
from .preprocessor import PretrainDataPreprocessor
from .sampler import EpochSampler
from .transforms import LoadPILImage, PackImageInputs, RandomResizedCropAndFlip, ResizeAndCenterCrop

__all__ = [
    'ImageFolder', 'LabelMapFolder', 'EpochSampler', 'LoadPILImage', 'LoadBGRImage', 'LoadLabelMap',
    'RandomResizedCropAndFlip', 'ResizeAndCenterCrop', 'OnBGRArray', 'PackImageInputs',
    'PretrainDataPreprocessor'
]
