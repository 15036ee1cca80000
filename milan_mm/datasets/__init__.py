# SPDX-License-Identifier: Apache-2.0
"""Pictures, from a folder to a batch; importing this registers the parts."""
from .array_transforms import OnBGRArray
from .decoding import UnreadablePicture, composite, open_picture
from .loading import LoadImage
from .picture_folder import PictureFolder, class_names, find_pictures
from .preprocessor import PretrainDataPreprocessor
from .sampler import EpochSampler, SampleIndex
from .transforms import LoadPicture, PackPicture, RandomResizedCropAndFlip, ResizeAndCenterCrop

__all__ = [
    'PictureFolder', 'find_pictures', 'class_names', 'open_picture', 'composite',
    'UnreadablePicture', 'EpochSampler', 'SampleIndex', 'LoadPicture', 'RandomResizedCropAndFlip',
    'ResizeAndCenterCrop', 'PackPicture', 'PretrainDataPreprocessor', 'OnBGRArray',
    'LoadImage'
]
