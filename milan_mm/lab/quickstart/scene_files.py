# SPDX-License-Identifier: Apache-2.0
"""How scenes lie on the disk.

::

    SCENES/coco/annotations/{train,test}.json     boxes and masks, COCO's format
    SCENES/coco/{train,test}/<scene>.jpg
    SCENES/ade/images/{training,validation}/<scene>.jpg            the same images
    SCENES/ade/annotations/{training,validation}/<scene>.png       label maps, ADE20K's folders
    SCENES/ade/classes.txt                        line i names label i; label 0 is the background
    SCENES/meta.json                              classes, counts, what could not be made
"""
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...drawing.predictions import class_colours

PARTS = dict(train='training', test='validation')
"""Our name of a part, and ADE20K's."""
BACKGROUND = 'background'


class Scene(NamedTuple):
    """A composed image.

    Attributes:
        image: (S, S, 3) uint8.
        owner: (S, S) uint8, 0 where the background shows and k where object k - 1 does.
        labels: class index of each object.
    """
    image: np.ndarray
    owner: np.ndarray
    labels: list[int]


class SceneWriter:
    """Writes the scenes of one part, as COCO's and as ADE20K's data sets are laid out."""

    def __init__(self, out: Path, part: str, classes: list[str], kinds: Sequence[str]) -> None:
        self.out, self.part, self.classes, self.kinds = out, part, classes, kinds
        self.images: list[dict] = []
        self.annotations: list[dict] = []
        colours = [(0, 0, 0), *class_colours(len(classes))]
        self.palette = [value for colour in colours for value in colour]
        folders = dict(coco=out / 'coco' / part, ade=out / 'ade/images' / PARTS[part])
        self.image_folders = [folders[kind] for kind in kinds]
        self.map_folder = out / 'ade/annotations' / PARTS[part] if 'ade' in kinds else None
        for folder in filter(None, (*self.image_folders, self.map_folder)):
            folder.mkdir(parents=True)

    def add(self, name: str, scene: Scene) -> None:
        """Writes a scene's images and label map, and notes its objects."""
        encoded = io.BytesIO()
        Image.fromarray(scene.image).save(encoded, 'JPEG', quality=95, subsampling=0)
        for folder in self.image_folders:
            (folder / f'{name}.jpg').write_bytes(encoded.getvalue())
        height, width = scene.owner.shape
        self.images.append(dict(id=len(self.images) + 1, file_name=f'{name}.jpg', height=height,
                                width=width))
        for k, label in enumerate(scene.labels, start=1):
            self.annotations.append(dict(
                id=len(self.annotations) + 1, image_id=len(self.images), category_id=label + 1,
                iscrowd=0, **describe_mask(scene.owner == k)))
        if self.map_folder:
            labels = np.array([0, *(label + 1 for label in scene.labels)], np.uint8)[scene.owner]
            image = Image.fromarray(labels)
            image.putpalette(self.palette)
            image.save(self.map_folder / f'{name}.png')

    def finish(self) -> None:
        """Writes what describes all scenes of the part."""
        if 'coco' in self.kinds:
            write_coco(self.out / f'coco/annotations/{self.part}.json', self.images,
                       self.annotations, [dict(id=i, name=name)
                                          for i, name in enumerate(self.classes, start=1)])
        if 'ade' in self.kinds:
            write_classes(self.out / 'ade', [BACKGROUND, *self.classes])


def write_coco(path: Path, images: list[dict], annotations: list[dict],
               categories: list[dict]) -> None:
    """Writes COCO's annotation file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = dict(images=images, annotations=annotations, categories=categories)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding='utf-8')


def write_classes(folder: Path, names: list[str]) -> None:
    """Writes ``classes.txt``: line i names label i."""
    (folder / 'classes.txt').write_text(''.join(f'{n}\n' for n in names), encoding='utf-8')


def describe_mask(mask: np.ndarray) -> dict:
    """Box, area and run lengths of a mask (H, W) bool, as COCO's annotations have them.

    The run lengths are COCO's uncompressed ones, which every reader of the format takes: column
    by column, zeros first.
    """
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    box = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
    flat = mask.ravel(order='F')
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(ends, prepend=0, append=flat.size).tolist()
    return dict(
        bbox=box, area=int(mask.sum()),
        segmentation=dict(size=list(mask.shape), counts=[0, *runs] if flat[0] else runs))
