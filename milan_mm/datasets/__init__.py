# SPDX-License-Identifier: Apache-2.0
"""Images, from a folder to a batch; importing this registers the parts."""
from .array_transforms import OnBGRArray
from .channels import LoadChannels
from .image_folder import ImageFolder
from .label_maps import LabelMapFolder, LoadLabelMap
from .lists import ImageList
from .loading import LoadBGRImage
from .mixture import ImageMixture
from .preprocessor import PretrainDataPreprocessor
from .sampler import EpochSampler
from .shards import ImageShards, ShardSampler
from .transforms import LoadPILImage, PackImageInputs, RandomResizedCropAndFlip, ResizeAndCenterCrop

__all__ = [
    'ImageFolder', 'ImageList', 'ImageShards', 'ImageMixture', 'LabelMapFolder', 'EpochSampler',
    'ShardSampler', 'LoadPILImage', 'LoadBGRImage', 'LoadChannels', 'LoadLabelMap',
    'RandomResizedCropAndFlip', 'ResizeAndCenterCrop', 'OnBGRArray', 'PackImageInputs',
    'PretrainDataPreprocessor'
]
