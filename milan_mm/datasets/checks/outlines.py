# SPDX-License-Identifier: Apache-2.0
"""Boxes and outlines of COCO annotations, as annotation tools write them."""
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

TOLERANCE = 2.
"""Pixels by which a box may leave its image: tools round differently."""


FAR = 10
"""Times the longer side of an image beyond which a number is no coordinate in it."""


class Outline(NamedTuple):
    """A ``segmentation`` read: what to train on, or None, and what was put right or is wrong."""
    value: list | dict | None
    mended: str = ''
    problem: str = ''


def numbers(value: Any, count: int | None = None) -> list[float] | None:
    """A list of finite numbers, some of which may be text; None for anything else."""
    if not isinstance(value, (list, tuple)) or (count is not None and len(value) != count):
        return None
    try:
        if set(map(type, value)) <= {int, float}:  # nearly all there are
            return list(value) if all(map(math.isfinite, value)) else None
        found = [float(v) for v in value if not isinstance(v, bool)]
    except (TypeError, ValueError, OverflowError):
        return None
    return found if len(found) == len(value) and all(map(math.isfinite, found)) else None


def read_outline(value: Any, size: Sequence[int] | None) -> Outline:
    """Polygons ``[[x, y, ...], ...]`` or run lengths; empty is no outline and no problem.

    Args:
        value: as it stands in the file.
        size: (width, height) of the image, which run lengths have to fill; None if unknown.
    """
    if isinstance(value, dict):
        return _run_lengths(value, size)
    if not value:
        return Outline(None, '', '' if value is None or value == [] else f'outline {value!r}')
    if not isinstance(value, (list, tuple)):
        return Outline(None, '', f'outline of type {type(value).__name__}')
    polygons, mended = list(value), ''
    if numbers(polygons) is not None:
        polygons, mended = [polygons], 'outline [x, y, ...] read as [[x, y, ...]]'
    elif all(numbers(point, 2) is not None for point in polygons):
        polygons = [[v for point in polygons for v in point]]
        mended = 'outline of [x, y] pairs read as [[x, y, ...]]'
    elif all(isinstance(p, (list, tuple)) and p and all(
            numbers(point, 2) is not None for point in p) for p in polygons):
        polygons = [[v for point in p for v in point] for p in polygons]
        mended = 'outline of [x, y] pairs read as [[x, y, ...]]'
    read = [numbers(polygon) for polygon in polygons]
    if any(polygon is None for polygon in read):
        return Outline(None, '', 'outline with something other than numbers')
    good = [p for p in read if p is not None and len(p) >= 6 and len(p) % 2 == 0]
    if not good:
        return Outline(None, '', 'outline of fewer than three points' if all(
            p is not None and len(p) % 2 == 0 for p in read) else 'outline with half a point')
    if size is not None and max(abs(v) for p in good for v in p) > FAR * max(size):
        return Outline(None, '', 'outline far outside of its image')  # drawing it fills the memory
    if len(good) < len(read):
        mended = 'parts of an outline with fewer than three points dropped'
    elif not mended and good != polygons:
        mended = 'numbers written as text'
    return Outline(good, mended)


def _run_lengths(value: dict, size: Sequence[int] | None) -> Outline:
    counts, stated = value.get('counts'), numbers(value.get('size'), 2)
    if stated is None or not isinstance(counts, (list, str)):
        return Outline(None, '', 'run lengths without "counts" and "size"')
    height, width = map(int, stated)
    if size is not None and (width, height) != tuple(size):
        return Outline(None, '', f'run lengths for {width} x {height}, not the size of the image')
    if isinstance(counts, list):
        runs = numbers(counts)
        if runs is None or min(runs, default=-1) < 0 or sum(runs) != width * height:
            return Outline(None, '', 'run lengths that do not fill the image')
        return Outline(dict(value, size=[height, width], counts=[int(n) for n in runs]))
    from pycocotools import mask  # comes with mmdet, which is not needed for anything else here
    try:
        area = int(mask.area(dict(size=[height, width], counts=counts.encode())))
    except Exception:
        area = -1
    if not 0 <= area <= width * height:
        return Outline(None, '', 'run lengths that cannot be read')
    return Outline(dict(value, size=[height, width]))


def extent(outline: list | dict | None) -> list[float] | None:
    """[left, top, right, bottom] of polygons; None for run lengths and for no outline."""
    if not isinstance(outline, list):
        return None
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in outline])
    return [*points.min(0).tolist(), *points.max(0).tolist()]


def area_of(outline: list | dict | None, box: Sequence[float]) -> float:
    """Square pixels of polygons by the shoelace formula; without, or where flat, of the box."""
    total = 0.
    for polygon in outline if isinstance(outline, list) else ():
        x, y = np.reshape(polygon, (-1, 2)).T
        total += abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
    return total or float(box[2] * box[3])


def leaves(box: Sequence[float], size: Sequence[int]) -> bool:
    """Whether a box [left, top, width, height] leaves its image (width, height) noticeably."""
    x, y, w, h = box
    return min(x, y) < -TOLERANCE or x + w > size[0] + TOLERANCE or y + h > size[1] + TOLERANCE


def fits_as_corners(box: Sequence[float], size: Sequence[int]) -> bool:
    """Whether the same numbers would be a sound box as [left, top, right, bottom]."""
    left, top, right, bottom = box
    return right > left and bottom > top and not leaves(
        (left, top, right - left, bottom - top), size)


def reading_of(box: Sequence[float], around: Sequence[float] | None) -> str:
    """How a box means the extent of its outline: by 'corners', by 'sides', 'both' or 'neither'.

    Sides are [left, top, width, height]; '' without an outline.
    """
    if around is None:
        return ''
    sides = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    meant = [name for name, edges in (('corners', box), ('sides', sides))
             if all(abs(e - a) <= TOLERANCE for e, a in zip(edges, around))]
    return 'both' if len(meant) == 2 else (meant or ['neither'])[0]


def overlap(box: Sequence[float], around: Sequence[float]) -> float:
    """Intersection over union of a box [left, top, width, height] and an extent."""
    x, y, w, h = box
    left, top, right, bottom = around
    inner = max(min(x + w, right) - max(x, left), 0) * max(min(y + h, bottom) - max(y, top), 0)
    union = w * h + (right - left) * (bottom - top) - inner
    return inner / union if union > 0 else 0.
