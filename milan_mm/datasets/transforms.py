# SPDX-License-Identifier: Apache-2.0
"""Transforms on Pillow images: one resampling from the file to the network's input.

They draw from ``numpy.random``'s global generator, as OpenMMLab's do; :class:`ImageFolder`
starts it from each sample's key.
"""
import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.structures import DataSample
from PIL import Image

from ..architectures import IMAGENET_CROP_RATIO
from ..errors import MilanError
from ..registry import TRANSFORMS
from ..structures import pair
from .channels import resized
from .decoding import MAX_PIXELS, composite, open_image
from .depth import check_range
from .jpegs import JPEG, open_jpeg

_META = ('img_path', 'unreadable', 'ori_shape', 'img_shape')


@TRANSFORMS.register_module()
class LoadPILImage(BaseTransform):
    """Reads ``img_path``, or ``img_bytes`` from it, into ``img``, a Pillow image in RGB, upright.

    Without a path, ``img`` is an array (H, W, 3) in BGR, which mmpretrain's inferencers give.

    Args:
        background: colour under transparent parts, RGB in 0..255.
        max_pixels, value_range: see :func:`open_image`.
        scaled_jpegs: whether JPEGs are read as :class:`JPEG`, which a crop then decodes at the
            scale it needs. The same boxes are cut; pixels differ from those of the whole image
            by a level or so. Other files, and JPEGs that are odd, are read as ever.
    """

    def __init__(self, background: Sequence[int] = (255, 255, 255), max_pixels: int = MAX_PIXELS,
                 value_range: Sequence[float] | None = None, scaled_jpegs: bool = False) -> None:
        red, green, blue = background
        self.background, self.max_pixels = (red, green, blue), max_pixels
        self.scaled_jpegs = scaled_jpegs
        self.open = functools.partial(
            open_image, max_pixels=max_pixels, value_range=check_range(value_range))

    def transform(self, results: dict) -> dict:
        image: Image.Image | JPEG | None = None
        if 'img_path' in results:
            path, content = results['img_path'], results.pop('img_bytes', None)
            if self.scaled_jpegs:
                image = open_jpeg(path, self.max_pixels, content)
            image = image or composite(self.open(path, content=content), self.background)
        else:
            image = Image.fromarray(np.ascontiguousarray(results['img'][..., ::-1]))
        results['img'] = image
        results['ori_shape'] = results['img_shape'] = image.size[::-1]
        return results


@TRANSFORMS.register_module()
class RandomResizedCropAndFlip(BaseTransform):
    """The augmentation of MILAN and MAE: a random crop, resized, perhaps mirrored.

    Args:
        size: height and width in pixels, or one number for a square.
        scale: range of the crop's area, as a share of the image.
        ratio: range of the crop's width by its height.
        flip_prob: probability of a horizontal flip.
        phases: sizes of the first epochs, each with how many epochs it is for, such as
            ``((160, 100), )``: 160 px for 100 epochs, then ``size``. The same crops are cut; small
            images are fewer patches, which take less time. In pretraining only.
    """

    def __init__(self,
                 size: int | Sequence[int],
                 scale: tuple[float, float] = (0.2, 1.0),
                 ratio: tuple[float, float] = (3 / 4, 4 / 3),
                 flip_prob: float = 0.5,
                 phases: Sequence[tuple[int | Sequence[int], int]] = ()) -> None:
        self.size, self.scale, self.ratio, self.flip_prob = pair(size), scale, ratio, flip_prob
        self.phases = read_phases(phases)

    def transform(self, results: dict) -> dict:
        image, wanted = results['img'], self.size_in(results.get('epoch'))
        box = self.random_box(*(image.shape[1::-1] if isinstance(image, np.ndarray)
                                else image.size))
        flip = np.random.rand() < self.flip_prob
        if isinstance(image, Image.Image):
            image = image.resize(wanted[::-1], Image.Resampling.BICUBIC, box=box)
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image
        else:
            image = (image.cropped(box, wanted) if isinstance(image, JPEG)
                     else resized(image, box, wanted))
            image = image[:, ::-1] if flip else image
        results['img'] = image
        results['img_shape'] = wanted
        return results

    def size_in(self, epoch: int | None) -> tuple[int, int]:
        """Height and width of the images of an epoch, from 0; of samples without one, the last."""
        if epoch is not None:
            for size, epochs in self.phases:
                if epoch < epochs:
                    return size
                epoch -= epochs
        return self.size

    def random_box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom; ten tries, then the largest central box that fits."""
        for _ in range(10):
            area = width * height * np.random.uniform(*self.scale)
            ratio = math.exp(np.random.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left = np.random.randint(0, width - w + 1)
                top = np.random.randint(0, height - h + 1)
                return left, top, left + w, top + h
        w = min(width, round(height * self.ratio[1]))
        h = min(height, round(width / self.ratio[0]))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h


def read_phases(phases: Sequence[tuple[int | Sequence[int], int]]
                ) -> list[tuple[tuple[int, int], int]]:
    """Height, width and epochs of each.

    Raises:
        MilanError: if they are no sizes with a number of epochs each.
    """
    try:
        read = [(pair(size), epochs) for size, epochs in phases]
        if not all(type(n) is int and n > 0 for size, epochs in read for n in (*size, epochs)):
            raise ValueError
    except (TypeError, ValueError) as error:
        raise MilanError('phases are pairs of a size in pixels and a number of epochs, such as '
                         f'((160, 100), ), got {phases!r}') from error
    return read


@TRANSFORMS.register_module()
class ResizeAndCenterCrop(BaseTransform):
    """For evaluation: the largest central crop of the shape wanted, resized.

    Args:
        size: height and width in pixels, or one number for a square.
        crop_ratio: side of the crop as a share of the largest that fits.
    """

    def __init__(self, size: int | Sequence[int], crop_ratio: float = IMAGENET_CROP_RATIO) -> None:
        self.size, self.crop_ratio = pair(size), crop_ratio

    def transform(self, results: dict) -> dict:
        image: Image.Image = results['img']
        height, width = self.size
        scale = self.crop_ratio * min(image.width / width, image.height / height)
        w, h = width * scale, height * scale
        left, top = (image.width - w) / 2, (image.height - h) / 2
        image = image.resize((width, height), Image.Resampling.BICUBIC,
                             box=(left, top, left + w, top + h))
        results.update(img=image, img_shape=self.size)
        return results


@TRANSFORMS.register_module()
class PackImageInputs(BaseTransform):
    """Turns a sample into what the model takes: ``inputs``, ``data_samples``, keys."""

    def transform(self, results: dict) -> dict:
        pixels = np.asarray(results['img']).transpose(2, 0, 1)
        sample = DataSample(metainfo={k: results[k] for k in _META if k in results})
        if 'gt_label' in results:
            sample.set_gt_label(results['gt_label'])
        packed = dict(inputs=torch.from_numpy(np.array(pixels, order='C')), data_samples=sample)
        packed.update({key: results[key] for key in ('sample_key', 'view') if key in results})
        return packed
