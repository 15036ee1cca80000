# SPDX-License-Identifier: Apache-2.0
"""Intervals and paired tests for finetuning, detection and segmentation, over held-out images.

Of a classifier each image is right or wrong. The measures of detection and segmentation are of all
images together; of them the bootstrap draws images, the same for every start, and measures anew.
"""
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import MilanError
from ...evaluation.average_precision import match_detections, mean_average_precision
from ...evaluation.hits import read_areas, read_hits
from ...evaluation.paired import bootstrap_p, bootstrap_weights, percentiles
from .comparisons import compare_encoders, comparisons_of, group_of, intervals_of
from .tasks import STARTS, TASKS

_REPLICATES = dict(detection=400, segmentation=2000)  # the former takes a while
_KINDS = dict(bbox_mAP='bbox', segm_mAP='segm')


class Measured(NamedTuple):
    """A measure over images: how many there are, and its value under (r, n) weights, in percent."""
    images: int
    value: Callable[[np.ndarray], np.ndarray]


def compare_all(works: Sequence[Path], kind: str) -> dict[str, dict]:
    """What :func:`.comparisons.compare_encoders` and :func:`compare_starts` give, together."""
    parts = compare_encoders(works, kind), compare_starts(works, kind)
    merged = {key: {block: values for part in parts for block, values in part.get(key, {}).items()}
              for key in ('intervals', 'paired')}
    return {key: blocks for key, blocks in merged.items() if blocks}


def compare_starts(works: Sequence[Path], kind: str) -> dict[str, Any]:
    """MILAN's start against each other one in every task, as far as images were kept.

    Args:
        works: folder of each repetition; if not all did a task, that of the first one counts.
        kind: see :func:`.comparisons.group_of`.

    Returns:
        ``intervals``: task -> measure -> start -> (low, high). ``paired``: task -> measure -> start
        -> the fields of :class:`milan_mm.evaluation.paired.Comparison`.
    """
    intervals, paired = dict[str, Any](), dict[str, Any]()
    for task in TASKS:
        starts = [start for start in STARTS if (works[0] / task / start).is_dir()]
        done = all((work / task / start).is_dir() for work in works for start in starts)
        try:
            found = _of_task(task, starts, works if done else works[:1], kind)
        except MilanError:  # no figures of each image, of an earlier version
            continue
        for metric, (ends, tests) in found.items():
            intervals.setdefault(task, {})[metric] = ends
            paired.setdefault(task, {})[metric] = tests
    return dict(intervals=intervals, paired=paired)


def _of_task(task: str, starts: Sequence[str], works: Sequence[Path],
             kind: str) -> dict[str, tuple[dict, dict]]:
    if 'milan' not in starts:
        return {}
    if task == 'finetune':
        hits = {start: [read_hits(work / task / start / 'hits.npz')['top1'] for work in works]
                for start in starts}
        group = group_of(kind)
        return dict(top1=(intervals_of(hits, group), comparisons_of(hits, 'milan', group)))
    read = _detection if task == 'detection' else _segmentation
    measured = {start: [read(work, work / task / start) for work in works] for start in starts}
    return {metric: compare_measures(
        {start: [run[metric] for run in runs] for start, runs in measured.items()},
        _REPLICATES[task]) for metric in TASKS[task].metrics}


def compare_measures(runs: dict[str, list[Measured]],
                     replicates: int) -> tuple[dict[str, tuple[float, float]], dict[str, dict]]:
    """Intervals of each start, and MILAN's against the others, by the bootstrap over images.

    Args:
        runs: start -> its measure in each run; the images of a run are the same for all starts.
        replicates: samples.
    """
    samples = {start: _samples(row, replicates) for start, row in runs.items()}
    whole = {start: float(np.mean([one.value(np.ones((1, one.images)))[0] for one in row]))
             for start, row in runs.items()}
    tests = {}
    for start in samples:
        if start == 'milan':
            continue
        differences = samples['milan'] - samples[start]
        low, high = percentiles(differences)
        tests[start] = dict(
            difference=whole['milan'] - whole[start], low=low, high=high,
            p=bootstrap_p(differences), images=runs['milan'][0].images,
            groups=sum(one.images for one in runs['milan']), runs=len(runs['milan']),
            test='bootstrap over images' + (' and runs' if len(runs['milan']) > 1 else ''))
    return {start: percentiles(values) for start, values in samples.items()}, tests


def _samples(row: list[Measured], replicates: int) -> np.ndarray:
    """(replicates,) the mean over runs, of drawn runs and images."""
    values = np.stack([
        np.concatenate([one.value(images) for _, images in bootstrap_weights(
            1, one.images, seed, replicates)]) for seed, one in enumerate(row)], axis=1)
    if len(row) == 1:
        return values[:, 0]
    drawn = np.random.default_rng(len(row)).multinomial(
        len(row), np.full(len(row), 1 / len(row)), len(values))
    return (values * drawn).sum(axis=1) / len(row)


def _detection(work: Path, run: Path) -> dict[str, Measured]:
    found = {}
    for metric, kind in _KINDS.items():
        images, matches = match_detections(work / TASKS['detection'].data / 'annotations/test.json',
                                           run / f'predictions.{kind}.json', kind)
        found[metric] = Measured(len(images), functools.partial(mean_average_precision, matches))
    return found


def _segmentation(work: Path, run: Path) -> dict[str, Measured]:
    _, areas = read_areas(run / 'hits.npz')
    areas = areas.astype(float)

    def intersection_over_union(weights: np.ndarray) -> np.ndarray:
        common, truth, named = (weights @ areas[:, i] for i in range(3))
        with np.errstate(invalid='ignore'):  # of a class that neither is there nor is named
            return 100 * np.nanmean(common / (truth + named - common), axis=1)

    def accuracy(weights: np.ndarray) -> np.ndarray:
        common, truth = ((weights @ areas[:, i]).sum(axis=1) for i in range(2))
        return 100 * common / truth

    return dict(mIoU=Measured(len(areas), intersection_over_union),
                aAcc=Measured(len(areas), accuracy))
