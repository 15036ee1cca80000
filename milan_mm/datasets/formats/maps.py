# SPDX-License-Identifier: Apache-2.0
"""Label maps made of COCO's outlines, or of images in which a colour stands for a class."""
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_masks

from ...errors import MilanError
from ...wording import some_of
from ..checks.text import read_coco, read_text
from ..decoding import opened
from ..finding import find_images
from ..label_maps import IGNORED

BACKGROUND = 'background'


def coco_classes(source: Path) -> tuple[str, ...]:
    """Background, and the categories of a COCO file in its order.

    Raises:
        MilanError: if it is none.
    """
    try:
        return BACKGROUND, *(str(c['name']) for c in read_coco(source)[0]['categories'])
    except (KeyError, TypeError) as error:
        raise MilanError(f'{source} is no COCO file: a category has no name') from error


def draw_coco(source: Path, folder: Path) -> int:
    """Draws the outlines of a COCO file into label maps, large ones first; 0 is background.

    A map that is newer than the file is kept.

    Args:
        source: the file.
        folder: for the maps, named as the images.

    Returns:
        How many maps there are.

    Raises:
        MilanError: if the file is none of COCO's, or an annotation has no outline.
    """
    content = read_coco(source)[0]
    try:
        labels = {c['id']: i for i, c in enumerate(content['categories'], 1)}
        outlines: dict = {}
        for annotation in content['annotations']:
            outlines.setdefault(annotation['image_id'], []).append(annotation)
        if len(labels) >= IGNORED:
            raise MilanError(f'{source} has {len(labels)} categories; label maps hold '
                             f'{IGNORED - 1} beside the background')
        for image in content['images']:
            _write(folder / f'{os.path.splitext(image["file_name"])[0]}.png', source,
                   partial(_drawn, image, outlines.get(image['id'], []), labels))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise MilanError(f'{source} cannot be drawn ({type(error).__name__}: {error}): expected '
                         'images with width and height, annotations with outlines '
                         '("segmentation") of listed categories') from error
    return len(content['images'])


def read_colours(path: Path) -> dict[str, tuple[int, int, int]]:
    """Classes and their colours, of a file as CVAT writes it: ``name:red,green,blue`` a line.

    Raises:
        MilanError: for a line that is none, or two classes of one colour.
    """
    colours: dict[str, tuple[int, int, int]] = {}
    for number, line in enumerate(read_text(path)[0].splitlines(), 1):
        if not line.strip() or line.startswith('#'):
            continue
        name, _, rest = line.partition(':')
        try:
            red, green, blue = (int(v) for v in rest.split(':')[0].split(','))
        except ValueError as error:
            raise MilanError(f'{path}, line {number} ({line[:60]}): expected NAME:RED,GREEN,BLUE'
                             ) from error
        if (red, green, blue) in colours.values():
            raise MilanError(f'{path}, line {number}: the colour {red},{green},{blue} has a class '
                             'already')
        colours[name.strip()] = red, green, blue
    if not colours:
        raise MilanError(f'{path} names no class: expected NAME:RED,GREEN,BLUE a line')
    return colours


def index_colours(source: Path, colours: dict[str, tuple[int, int, int]], folder: Path) -> int:
    """Makes label maps of images in which a colour stands for a class; gives their number.

    The first class has the value 0. A map that is newer than its source is kept.

    Raises:
        MilanError: if an image has a colour of no class.
    """
    keys = np.array([_key(np.array(c)) for c in colours.values()])
    order = np.argsort(keys)
    paths = find_images(source)
    for path in paths:
        inside = Path(os.path.relpath(path, source)).with_suffix('.png')
        _write(folder / inside, Path(path),
               partial(_indexed, path, keys[order], order, list(colours)))
    return len(paths)


def _key(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., :3].astype(np.int64) @ [65536, 256, 1]


def _indexed(path: str, keys: np.ndarray, labels: np.ndarray, names: list[str]) -> np.ndarray:
    with opened(path) as image:
        pixels = _key(np.asarray(image.convert('RGB')))
    place = np.searchsorted(keys, pixels).clip(0, len(keys) - 1)
    strange = np.unique(pixels[keys[place] != pixels])
    if strange.size:
        value = int(strange[0])
        raise MilanError(f'{path} has the colour {value >> 16},{value >> 8 & 255},{value & 255}, '
                         f'which is of no class: {some_of(names, 9)}; was it saved as JPEG?')
    return labels[place].astype(np.uint8)


def _drawn(image: dict, annotations: list[dict], labels: dict) -> np.ndarray:
    height, width = int(image['height']), int(image['width'])
    drawn = np.zeros((height, width), np.uint8)
    masks = [(labels[a['category_id']], _mask(a, height, width)) for a in annotations]
    for label, mask in sorted(masks, key=lambda pair: -int(pair[1].sum())):
        drawn[mask] = label
    return drawn


def _mask(annotation: dict, height: int, width: int) -> np.ndarray:
    outline = annotation['segmentation']
    if isinstance(outline, list):
        if not outline:
            raise ValueError(f'annotation {annotation.get("id")} has no outline')
        runs = coco_masks.merge(coco_masks.frPyObjects(outline, height, width))
    elif isinstance(outline['counts'], list):
        runs = coco_masks.frPyObjects(outline, height, width)
    else:
        runs = outline
    return coco_masks.decode(runs).astype(bool)


def _write(path: Path, source: Path, make: Callable[[], np.ndarray]) -> None:
    if path.is_file() and path.stat().st_mtime >= source.stat().st_mtime:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.stem}.{os.getpid()}.png')
    Image.fromarray(make()).save(temporary)
    os.replace(temporary, path)
