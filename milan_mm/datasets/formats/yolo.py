# SPDX-License-Identifier: Apache-2.0
"""YOLO's folders: a text file for each image, fractions of it, and data.yaml for the names."""
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ...errors import MilanError, UnreadableImageError
from ...wording import some_of
from ..checks.facts import image_header
from ..finding import find_images

SPLITS = {'train': ('train', ), 'val': ('val', 'valid', 'validation'), 'test': ('test', )}


def find_yaml(root: Path) -> Path | None:
    """The file that describes YOLO's folders; None if there is none."""
    for path in sorted([*root.glob('*.yaml'), *root.glob('*.yml')]):
        content = _read(path)
        if isinstance(content, dict) and 'names' in content and 'train' in content:
            return path
    return None


def read_yolo(description: Path, split: str) -> dict[str, Any]:
    """A split as the content of a COCO file.

    Lines with five numbers are boxes (class, middle x and y, width, height); longer ones outlines
    (class, x and y of each corner), or with ``kpt_shape`` boxes and key points, which are left
    aside. An image without a text file has no object.

    Args:
        description: data.yaml.
        split: 'train', 'val' or 'test'.

    Returns:
        The content; file names are relative to the folder of ``description``.

    Raises:
        MilanError: if the split is not described, or a line is none of YOLO's.
    """
    content = _read(description)
    names = content['names']
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise MilanError(f'{description}: the keys of names are {some_of(list(names), 9)}; '
                             f'expected the numbers of the classes, 0 to {len(names) - 1}')
        names = [names[number] for number in range(len(names))]
    names = list(names)
    given = next((content[name] for name in SPLITS[split] if content.get(name)), None)
    if given is None:
        raise MilanError(f'{description} has no {split}: expected "{split}: images/{split}", the '
                         'folder of its images')
    images: list[dict] = []
    annotations: list[dict] = []
    for path in _images(description, content, given):
        try:
            width, height = image_header(str(path))['size']
        except UnreadableImageError:  # the look through the data leaves it out, and names it
            width, height = 0, 0
        images.append(dict(id=len(images) + 1, width=width, height=height,
                           file_name=os.path.relpath(path, description.parent)))
        for entry in _entries(path, (width or 1, height or 1), names, 'kpt_shape' in content):
            annotations.append(dict(entry, id=len(annotations) + 1, image_id=len(images)))
    return dict(images=images, annotations=annotations, categories=[
        dict(id=i, name=str(name)) for i, name in enumerate(names)])


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding='utf-8-sig'))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        words = ' '.join(str(error).split())
        raise MilanError(f'{path} cannot be read as YAML: {words}') from error


def _images(description: Path, content: dict, given: Any) -> list[Path]:
    """Of one or several folders, or of text files that list them."""
    base = description.parent / Path(str(content.get('path') or '')).expanduser()
    bases = [base, description.parent] if base.is_dir() else [description.parent]
    found: list[Path] = []
    for part in given if isinstance(given, list) else [given]:
        # Roboflow writes ../train/images and means train/images.
        names = [str(part), *([str(part)[3:]] if str(part).startswith('../') else [])]
        place = next((p for b in bases for name in names if (p := b / name).exists()), None)
        if place is None:
            raise MilanError(f'{description} names {part}, and there is no such folder in '
                             f'{some_of(bases)}')
        if place.is_dir():
            found += map(Path, find_images(place))
        else:
            lines = place.read_text(encoding='utf-8').splitlines()
            found += [place.parent / line.strip() for line in lines if line.strip()]
    return found


def _labels_of(image: Path) -> Path:
    """The text file of an image: in ``labels`` in place of the last ``images``, or beside it."""
    parts = list(image.with_suffix('.txt').parts)
    for i in reversed(range(len(parts) - 1)):
        if parts[i] == 'images':
            parts[i] = 'labels'
            break
    return Path(*parts)


def _entries(image: Path, size: tuple[int, int], names: Sequence[Any],
             key_points: bool) -> list[dict]:
    labels = _labels_of(image)
    try:
        lines = labels.read_text(encoding='utf-8-sig').splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeError) as error:
        raise MilanError(f'{labels} cannot be read: {error}') from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f'{labels}, line {number} ({line.strip()[:60]})'
        try:
            kind, *values = map(float, line.split())
        except ValueError as error:
            raise MilanError(f'{where} is none of YOLO\'s: expected numbers: class x y width '
                             'height') from error
        if key_points:
            values = values[:4]
        if len(values) < 4 or len(values) % 2 or not all(map(math.isfinite, (kind, *values))):
            raise MilanError(f'{where} is none of YOLO\'s: expected class x y width height, or '
                             'class and x y of each corner')
        if kind != int(kind) or not 0 <= kind < len(names):
            raise MilanError(f'{where} is of class {kind:g}, and data.yaml names {len(names)}, '
                             f'0 to {len(names) - 1}')
        if max(values) > 1.01 or min(values) < -0.01:
            raise MilanError(f'{where}: expected fractions of the image from 0 to 1; are these '
                             'pixels?')
        found.append(dict(_shape(values, size), category_id=int(kind), iscrowd=0))
    return found


def _shape(values: list[float], size: tuple[int, int]) -> dict:
    """Box, area and, if there is one, outline in pixels."""
    width, height = size
    if len(values) == 4:
        x, y, w, h = (v * side for v, side in zip(values, (width, height) * 2))
        return dict(bbox=[x - w / 2, y - h / 2, w, h], area=w * h)
    outline = [v * side for v, side in zip(values, (width, height) * (len(values) // 2))]
    xs, ys = outline[::2], outline[1::2]
    turned = zip(xs, ys, xs[1:] + xs[:1], ys[1:] + ys[:1])
    area = abs(sum(x * next_y - next_x * y for x, y, next_x, next_y in turned)) / 2
    return dict(bbox=[min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)], area=area,
                segmentation=[outline])
