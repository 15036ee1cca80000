# SPDX-License-Identifier: Apache-2.0
"""Images, from a folder to a batch; importing this registers the parts."""
from .array_transforms import OnBGRArray
from .decoding import UnreadableImageError, composite, open_image
from .image_folder import ImageFolder, class_names, find_images
from .loading import LoadBGRImage
from .preprocessor import PretrainDataPreprocessor
from .sampler import EpochSampler, SampleIndex
from .transforms import LoadPILImage, PackImageInputs, RandomResizedCropAndFlip, ResizeAndCenterCrop

__all__ = [
    'ImageFolder', 'find_images', 'class_names', 'open_image', 'composite',
    'UnreadableImageError', 'EpochSampler', 'SampleIndex', 'LoadPILImage',
    'RandomResizedCropAndFlip', 'ResizeAndCenterCrop', 'PackImageInputs',
    'PretrainDataPreprocessor', 'OnBGRArray', 'LoadBGRImage'
]
