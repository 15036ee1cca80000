# SPDX-License-Identifier: Apache-2.0
"""Images and their label maps, whatever kinds of image files they are."""
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset
from PIL import Image, ImageOps

from ..errors import MilanError, UnreadableImageError
from ..registry import DATASETS, TRANSFORMS
from .decoding import SUFFIXES, opened
from .finding import files_by_folder, find_images, is_file

IGNORED = 255
"""Label of pixels that belong to no class."""
_ORIENTATION = 0x0112  # the EXIF tag


@DATASETS.register_module()
class LabelMapFolder(BaseDataset):
    """Images with a label map each, in two folders, for mmseg's pipelines and metrics.

    As mmseg's ``BaseSegDataset``, except that images may end in any suffix, and each in another.

    Args:
        data_root: folder that the others are relative to.
        data_prefix: ``img_path`` and ``seg_map_path``, the two folders.
        ann_file: JSON list of [image, map], relative to these; '' for every image in the folder.
        img_suffix: end of the images' names; None for every image.
        seg_map_suffix: what a map's name has in place of the image's suffix; a map of another
            suffix is taken where there is none of this one.
        reduce_zero_label: whether 0 is no class, and 1 the first.
        pipeline: transforms.
        **kwargs: as of ``BaseDataset``.

    Raises:
        MilanError: if there is no image, or one has no map.
    """

    def __init__(self,
                 data_root: str = '',
                 data_prefix: dict | None = None,
                 ann_file: str = '',
                 img_suffix: str | None = None,
                 seg_map_suffix: str = '.png',
                 reduce_zero_label: bool = False,
                 pipeline: Sequence[dict | Callable] = (),
                 **kwargs: Any) -> None:
        self.img_suffix, self.seg_map_suffix = img_suffix, seg_map_suffix
        self.reduce_zero_label = reduce_zero_label
        super().__init__(
            ann_file=ann_file, data_root=data_root, pipeline=list(pipeline),
            data_prefix=dict(data_prefix or dict(img_path='', seg_map_path='')), **kwargs)
        size = len(self.metainfo.get('classes') or ()), 3
        palette = np.random.RandomState(42).randint(0, 255, size).tolist()
        self._metainfo.update(palette=self.metainfo.get('palette') or palette, label_map=None,
                              reduce_zero_label=reduce_zero_label)

    def load_data_list(self) -> list[dict]:
        images, maps = self.data_prefix['img_path'], self.data_prefix['seg_map_path']
        if self.ann_file:
            pairs = json.loads(Path(self.ann_file).read_text(encoding='utf-8'))
        else:
            pairs = find_pairs(Path(images), Path(maps), self.img_suffix, self.seg_map_suffix)
        missing = [image for image, labels in pairs if labels is None]
        if missing:
            raise MilanError(f'{len(missing)} of {len(pairs)} images in {images} have no label '
                             f'map in {maps}, such as {missing[0]}')
        return [dict(img_path=os.path.join(images, image), seg_map_path=os.path.join(maps, labels),
                     label_map=None, reduce_zero_label=self.reduce_zero_label, seg_fields=[])
                for image, labels in pairs]


@TRANSFORMS.register_module()
class LoadLabelMap(BaseTransform):
    """Reads ``seg_map_path`` into ``gt_seg_map``, (H, W) uint8, as mmseg's ``LoadAnnotations``.

    Beyond which it reads maps of three equal planes as one, and turns a map along with its image
    where it lies as the image does before the EXIF orientation is applied.
    """

    def transform(self, results: dict) -> dict:
        path = results['seg_map_path']
        labels = read_label_map(path)[0]
        size = tuple(results['ori_shape'][:2])
        if labels.shape != size and labels.shape == size[::-1]:
            labels = turned(labels, results['img_path'])
        if labels.shape != size:
            raise MilanError(f'{path} is {labels.shape[1]} x {labels.shape[0]}, its image '
                             f'{size[1]} x {size[0]}')
        labels = labels.astype(np.uint8)
        if results.get('reduce_zero_label'):  # 0 and 255 are ignored, and 1 becomes 0
            labels = np.where((labels == 0) | (labels == IGNORED), IGNORED, labels - 1)
        results['gt_seg_map'] = labels.astype(np.uint8)
        results['seg_fields'].append('gt_seg_map')
        return results


def read_label_map(path: str | Path) -> tuple[np.ndarray, str]:
    """The labels of a map, whole numbers (H, W), and the mode of its file.

    Palettes are not looked up: their indices are the labels. Colour planes must be equal, and an
    alpha channel hide nothing.

    Raises:
        UnreadableImageError: if the file cannot be decoded, or holds colours.
    """
    with opened(path) as file:
        mode, labels = file.mode, np.asarray(file)
    if labels.ndim == 3 and mode in ('RGB', 'RGBA', 'LA'):
        alpha = labels[..., -1] if mode in ('RGBA', 'LA') else np.uint8(255)
        colours = labels[..., :3] if mode != 'LA' else labels[..., :1]
        if (colours == colours[..., :1]).all() and np.all(alpha == 255):
            labels = colours[..., 0]
    if labels.ndim != 2 or labels.dtype.kind == 'f' and (labels != np.floor(labels)).any():
        raise UnreadableImageError(f'{path} holds colours or fractions (mode {mode}); expected '
                                   'one whole number a pixel')
    return labels.astype(np.int64) if labels.dtype.kind == 'f' else labels, mode


def turned(labels: np.ndarray, image: str | Path) -> np.ndarray:
    """A map turned as the EXIF orientation of an image says."""
    with opened(image) as file:
        orientation = file.getexif().get(_ORIENTATION, 1)
    plain = Image.fromarray(labels.astype(np.uint8))
    plain.getexif()[_ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(plain))


def find_pairs(images: Path, maps: Path, img_suffix: str | None = None,
               map_suffix: str = '.png') -> list[tuple[str, str | None]]:
    """Each image with its label map, or None, relative to their folders.

    Args:
        images, maps: the folders; sub-folders of one are those of the other.
        img_suffix: end of the images' names; None for every image.
        map_suffix: what a map's name has in its place; where no map has it, any other will do.

    Raises:
        MilanError: if there is no folder, or no image.
    """
    if not maps.is_dir():
        raise MilanError(f'no such folder: {maps}, of the label maps to {images}')
    names = [os.path.relpath(path, images) for path in find_images(images)]
    if img_suffix is not None:
        names = [name for name in names if name.endswith(img_suffix)]
    if not names:
        raise MilanError(f'no image in {images} ends in {img_suffix}; img_suffix=None takes every '
                         'image')
    there = {os.path.relpath(file.path, maps)
             for files in files_by_folder(str(maps)) for file in files if is_file(file)}
    by_stem: dict[str, list[str]] = {}
    for name in there:
        if name.lower().endswith(SUFFIXES):
            by_stem.setdefault(os.path.splitext(name)[0], []).append(name)
    pairs: list[tuple[str, str | None]] = []
    for name in names:
        stem = name[:-len(img_suffix)] if img_suffix else os.path.splitext(name)[0]
        alike = by_stem.get(stem, [])
        pairs.append((name, stem + map_suffix if stem + map_suffix in there
                      else alike[0] if len(alike) == 1 else None))
    return pairs
