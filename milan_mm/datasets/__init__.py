# SPDX-License-Identifier: Apache-2.0
"""Pictures, from a folder to a batch; importing this registers the parts."""
from .decoding import UnreadablePicture, composite, open_picture
from .picture_folder import PictureFolder, find_pictures
from .preprocessor import PretrainDataPreprocessor
from .sampler import EpochSampler, SampleIndex
from .transforms import LoadPicture, PackPicture, RandomResizedCropAndFlip, ResizeAndCenterCrop

__all__ = [
    'PictureFolder', 'find_pictures', 'open_picture', 'composite', 'UnreadablePicture',
    'EpochSampler', 'SampleIndex', 'LoadPicture', 'RandomResizedCropAndFlip',
    'ResizeAndCenterCrop', 'PackPicture', 'PretrainDataPreprocessor'
]
