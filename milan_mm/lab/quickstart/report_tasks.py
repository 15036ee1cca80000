# SPDX-License-Identifier: Apache-2.0
"""The page's second half: what an encoder is worth once it is carried into a task."""
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...compat.quiet_import import quiet_import
from ...config.read import read_config
from ...datasets.decoding import composite, open_image, opened
from ...drawing import predictions as drawing
from ...drawing.panels import Tile
from ...errors import MilanError
from ...evaluation.paired import evidence
from ...inference.tasks import TaskModel, load_task_model
from ...reports.charts import Bar, Panel, Series, axis_end, bars, curves
from ...reports.curves import read_run
from ...wording import some_of
from .tasks import METRIC_WORDS, STARTS, TASKS, last_checkpoint
from .verdict import status

START_NAMES = dict(milan='from MILAN', mae='from MAE', scratch='from scratch')
_COLOURS = dict(milan='milan', mae='mae', scratch='random')
_SCORE, _SUREST = 0.1, 3  # drawn are so many detections, from this score on
_SHOWN = 5
_NOTES = dict(
    detection=f'The {_SUREST} surest detections with a score of {_SCORE} or more; a training of '
    'minutes is seldom sure.',
    segmentation='The background is left as it is.')


class TaskGallery(NamedTuple):
    """Held-out scenes: the truth, and what each start made of it.

    Attributes:
        title, note: above them.
        legend: (class, colour), where colours alone tell classes apart.
        rows: one a scene.
    """
    title: str
    note: str
    legend: list[tuple[str, str]]
    rows: list[list[Tile]]


def task_charts(results: dict) -> list[Panel]:
    """A chart of each measure of each task that was run."""
    charts = []
    for name, task in TASKS.items():
        block = results.get(name) or {}
        for metric in task.metrics:
            ends = results.get('intervals', {}).get(name, {}).get(metric, {})
            rows = [Bar(_COLOURS[start], START_NAMES[start], block[start][metric],
                        block[start].get(f'{metric}_std'),
                        tuple(ends[start]) if start in ends else None)
                    for start in STARTS if metric in block.get(start, {})]
            if rows:
                title = f'{task.title.capitalize()}: {METRIC_WORDS[metric]}, %'
                charts.append(bars(title, rows, None, axis_end([bar.highest for bar in rows])))
    return charts


def task_sentence(results: dict) -> str:
    """By how much MILAN's start is ahead of the others, or not, task by task."""
    parts = []
    for name, task in TASKS.items():
        block, metric = results.get(name) or {}, next(iter(task.metrics))
        if not {'milan', 'scratch'} <= set(block):
            continue
        tests = results.get('paired', {}).get(name, {}).get(metric, {})
        clauses = [_against(block['milan'][metric] - block[start][metric], tests.get(start), words)
                   for start, words in (('scratch', 'from scratch'), ('mae', 'from MAE'))
                   if metric in block.get(start, {})]
        parts.append(f'{task.title} {block["milan"][metric]:.1f} % {METRIC_WORDS[metric]}, '
                     + ' and '.join(clauses))
    return 'From MILAN\'s encoder: ' + '; '.join(parts) + '.' if parts else ''


def task_caveat(results: dict) -> str:
    """Over what intervals and p are, and what they leave out."""
    tests = [test for name, task in TASKS.items()
             for test in results.get('paired', {}).get(name, {}).get(
                 next(iter(task.metrics)), {}).values()]
    if not tests:
        return 'No intervals: these evaluations kept nothing of each image.'
    runs = max(test['runs'] for test in tests)
    drawn = ('held-out images and runs' if runs > 1 else 'held-out images; what another seed of '
             'the training would change is not in them (--full --seeds 3)')
    return (f'Whiskers and p: paired bootstrap over {drawn}. Of classification images of one of '
            f'the {results.get("groups", "images")} are drawn together; of detection and '
            'segmentation each scene is drawn for itself, and its measure is computed anew.')


def _against(difference: float, test: dict | None, words: str) -> str:
    said = f'{abs(difference):.1f} points {"more" if difference >= 0 else "fewer"} than {words}'
    if test is None:
        return said
    chance = ': may be chance' if status(test) == 'level' else ''
    return f'{said} ({evidence(test["low"], test["high"], test["p"])}{chance})'


def task_curves(work: Path) -> list[Panel]:
    """Loss of each task's training, one curve a start."""
    charts = []
    for name, task in TASKS.items():
        series = []
        for start in STARTS:
            try:
                logged = read_run(work / name / start).curves
            except MilanError:
                continue
            if 'loss' in logged:
                series.append(Series(START_NAMES[start], _COLOURS[start], *logged['loss']))
        charts.append(curves(f'{task.title.capitalize()}: loss', 'in finetuning', series))
    return [chart for chart in charts if chart is not None]


def task_galleries(work: Path) -> list[TaskGallery]:
    """Detections and label maps on held-out scenes, beside the truth."""
    found = []
    for name, scenes in (('detection', _detection_scenes), ('segmentation', _segmentation_scenes)):
        models = _models(work, name)
        if models:
            found.append(TaskGallery(TASKS[name].title.capitalize(), _NOTES[name],
                                     *scenes(work / TASKS[name].data, models)))
    return found


def _models(work: Path, name: str) -> dict[str, TaskModel]:
    """What each start led to; empty if the task was not run."""
    cfg = read_config(TASKS[name].config)
    models = {}
    for start in STARTS:
        try:
            checkpoint = last_checkpoint(work / name / start)
        except MilanError:
            continue
        with quiet_import():  # of mmdet and mmseg
            models[start] = load_task_model(cfg, checkpoint)
    return models


_Scenes = tuple[list[tuple[str, str]], list[list[Tile]]]  # legend and rows of a gallery


def _detection_scenes(data: Path, models: dict[str, TaskModel]) -> _Scenes:
    from pycocotools.coco import COCO  # comes with mmdet
    coco = COCO(str(data / 'annotations/test.json'))
    names = {c['id']: c['name'] for c in coco.loadCats(coco.getCatIds())}
    order = {identity: i for i, identity in enumerate(sorted(names))}
    colours = drawing.class_colours(len(names))
    rows = []
    for image_id in _spread(coco.getImgIds()):
        path = data / 'test' / coco.loadImgs(image_id)[0]['file_name']
        image = composite(open_image(path))
        truth = [
            drawing.Instance(_corners(a['bbox']), names[a['category_id']], None,
                             colours[order[a['category_id']]], coco.annToMask(a).astype(bool))
            for a in coco.loadAnns(coco.getAnnIds(image_id))]
        tiles = [_detected(image, truth, 'truth')]
        for start, trained in models.items():
            found = trained(image, path).pred_instances
            found = found[found.scores >= _SCORE][:_SUREST].cpu()  # sorted by score
            drawn = [
                drawing.Instance(box, trained.name_of(label), score, colours[label], mask)
                for box, label, score, mask in zip(
                    found.bboxes.tolist(), found.labels.tolist(), found.scores.tolist(),
                    np.asarray(found.masks, dtype=bool))]
            name = START_NAMES[start] + ('' if drawn else f': nothing found above {_SCORE}')
            tiles.append(_detected(image, drawn, name))
        rows.append(tiles)
    return [], rows


def _segmentation_scenes(data: Path, models: dict[str, TaskModel]) -> _Scenes:
    images = sorted((data / 'images/validation').iterdir())
    first = next(iter(models.values()))
    colours = first.palette or drawing.class_colours(len(first.classes))
    rows: list[list[Tile]] = []
    seen: set[int] = set()
    for path in _spread(images):
        image = composite(open_image(path))
        truth = data / 'annotations/validation' / f'{path.stem}.png'
        with opened(truth) as file:
            maps = [('truth', np.array(file))]
        maps += [(START_NAMES[start], trained(image, path).pred_sem_seg.data[0].cpu().numpy())
                 for start, trained in models.items()]
        tiles = []
        for name, labels in maps:
            shares = {int(label): float((labels == label).mean()) for label in np.unique(labels)
                      if label < len(colours)}
            seen.update(shares)
            largest = sorted(shares, key=shares.get, reverse=True)
            tinted = drawing.tint_classes(image, labels, [
                (label, first.name_of(label), shares[label], colours[label]) for label in largest])
            words = [f'{first.name_of(label)} {shares[label]:.0%}' for label in largest]
            tiles.append(Tile(tinted, name, f'{name}: {some_of(words)}', True))
        rows.append(tiles)
    legend = [(first.name_of(label), '#{:02x}{:02x}{:02x}'.format(*colours[label]))
              for label in sorted(seen) if first.name_of(label) != drawing.UNTINTED]
    return legend, rows


def _spread(items: Sequence) -> list:
    """A few, evenly over the list, so that all kinds of scenes have a chance."""
    step = max(1, len(items) // _SHOWN)
    return list(items)[::step][:_SHOWN]


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, width, height = box
    return left, top, left + width, top + height


def _detected(image: Image.Image, found: Sequence[drawing.Instance], name: str) -> Tile:
    words = f': {some_of([one.name for one in found])}' if found else ''
    return Tile(drawing.draw_detection(image, found), name, f'{name}, on a scene{words}', True)


def skipped_words(results: dict) -> list[str]:
    """Stages that could not be done with these images, and why."""
    return [f'{stage}: {reason}' for stage, reason in (results.get('skipped') or {}).items()]
