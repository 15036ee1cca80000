# SPDX-License-Identifier: Apache-2.0
"""COCO's mean average precision of many samples of the images, from one matching of detections.

pycocotools matches the detections of each image to its objects once. What follows, ranking all of
them by score, is done here for images that count several times or not at all: the bootstrap's.
"""
import contextlib
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import MilanError

_RECALLS = np.linspace(0, 1, 101)


class Matches(NamedTuple):
    """Detections of one class over all images, from the surest on.

    Attributes:
        image: (D,) which image each is on.
        right: (T, D) whether it was matched, at each IoU threshold.
        counted: (T, D) whether it counts at all.
        objects: (n,) objects of the class in each image.
    """
    image: np.ndarray
    right: np.ndarray
    counted: np.ndarray
    objects: np.ndarray


def match_detections(annotations: str | Path, detections: str | Path,
                     kind: str) -> tuple[list[int], list[Matches]]:
    """Matches what was found to what is there.

    Args:
        annotations: COCO's file of the truth.
        detections: COCO's file of results, as mmdet's ``CocoMetric(outfile_prefix=…)`` writes it.
        kind: 'bbox' or 'segm'.

    Returns:
        The images, and the matches of each class that there are objects of.

    Raises:
        MilanError: if a file is missing or not of that form.
    """
    from pycocotools.coco import COCO  # comes with mmdet
    from pycocotools.cocoeval import COCOeval
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(annotations))
            found = Path(detections).read_text(encoding='utf-8').strip()
            scored = truth.loadRes(str(detections)) if found != '[]' else COCO()
            images = sorted(truth.getImgIds())
            if found == '[]':
                return images, []
            scoring = COCOeval(truth, scored, kind)
            scoring.params.areaRng, scoring.params.areaRngLbl = [[0, 1e10]], ['all']
            scoring.evaluate()
    except (OSError, ValueError, KeyError, AssertionError, IndexError) as error:
        raise MilanError(f'{detections} holds no detections on the images of {annotations} '
                         f'({type(error).__name__}: {error})') from error
    number = {image: i for i, image in enumerate(images)}
    by_class: dict[int, list[dict]] = {}
    for one in scoring.evalImgs:
        if one is not None:
            by_class.setdefault(one['category_id'], []).append(one)
    matches = [_of_class(rows, number) for rows in by_class.values()]
    return images, [one for one in matches if one.objects.any()]


def mean_average_precision(matches: list[Matches], weights: np.ndarray) -> np.ndarray:
    """Mean over classes and thresholds, in percent, as COCO's ``AP`` for all sizes of objects.

    Args:
        matches: of each class.
        weights: (r, n) how often each image counts, in each of r samples.

    Returns:
        (r,) of which a class without objects in a sample is left out.
    """
    if not matches:
        return np.zeros(len(weights))
    each = np.stack([_average_precision(one, weights) for one in matches])
    return 100 * np.nan_to_num(np.nanmean(each, axis=0))


def _of_class(rows: list[dict], number: dict[int, int]) -> Matches:
    scores = np.concatenate([row['dtScores'] for row in rows])
    order = np.argsort(-scores, kind='mergesort')  # as pycocotools does
    image = np.concatenate([np.full(len(row['dtScores']), number[row['image_id']])
                            for row in rows]).astype(int)
    right, ignored = (np.concatenate([np.asarray(row[key]) > 0 for row in rows], axis=1)
                      for key in ('dtMatches', 'dtIgnore'))
    objects = np.zeros(len(number))
    for row in rows:
        objects[number[row['image_id']]] += np.sum(np.asarray(row['gtIgnore']) == 0)
    return Matches(image[order], right[:, order], ~ignored[:, order], objects)


def _average_precision(one: Matches, weights: np.ndarray) -> np.ndarray:
    """(r,) mean over thresholds; NaN where no object is left."""
    objects = weights @ one.objects
    drawn = weights[:, one.image].astype(np.float32)
    found = np.zeros(len(weights))
    for right, counted in zip(one.right, one.counted):
        hits = np.cumsum(drawn * (right & counted), axis=1)
        all_of_them = np.cumsum(drawn * counted, axis=1)
        precision = hits / np.maximum(all_of_them, np.finfo(np.float32).eps)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = hits / np.maximum(objects, 1)[:, None]
        for i in range(len(weights)):
            place = np.searchsorted(recall[i], _RECALLS - 1e-7, side='left')
            reached = place < recall.shape[1]
            found[i] += precision[i, place[reached]].sum() / len(_RECALLS)
    return np.where(objects > 0, found / len(one.right), np.nan)
