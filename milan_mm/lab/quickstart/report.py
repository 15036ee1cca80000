# SPDX-License-Identifier: Apache-2.0
"""The quickstart's page: the result, what was learned, and how it was made, in one file."""
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...checkpoints.io import last_checkpoint
from ...errors import MilanError
from ...reports.charts import Bar, Panel, Series, axis_end, bars, curves
from ...reports.curves import RunCurves, read_run
from ...reports.page import write_page
from ...resources import RESOURCES
from .report_images import choose_images, make_gallery, retrieval_rows
from .report_tasks import (
    skipped_words,
    task_caveat,
    task_charts,
    task_curves,
    task_galleries,
    task_sentence,
)
from .teacher import find_teacher
from .verdict import KINDS, differences, judge, shift_sentence

_NAMES = dict(random='random weights', mae='MAE', milan='MILAN', teacher='CLIP teacher')
_GALLERY, _QUERIES = 8, 6  # images shown


def write_report(work: Path) -> Path:
    """Writes ``WORK/report.html`` from what the other stages left in ``WORK``.

    ``results.json`` and ``data/meta.json`` must be there. What else is missing (a run's curves, a
    checkpoint, the styles) is left out of the page, which then says why where that is no matter
    of course.

    Args:
        work: the quickstart's folder.

    Returns:
        The path of the page.

    Raises:
        MilanError: if there is no result to report.
    """
    work = Path(work)
    results = _read_json(work / 'results.json', 'eval')
    meta = _read_json(work / 'data/meta.json', 'images')
    images = choose_images(work / 'data/test', _GALLERY)
    gallery, gallery_note = _or_reason(lambda: make_gallery(work, images))
    rows, rows_note = _or_reason(lambda: retrieval_rows(work, images[:_QUERIES]))
    tasks, tasks_note = _or_reason(lambda: task_galleries(work))
    return write_page(
        work / 'report.html',
        'quickstart',
        names=_NAMES,
        verdict=judge(results),
        differences=differences(results),
        measures=list(KINDS.values()),
        results=results,
        meta=meta,
        accuracy=accuracy_charts(results, 'classification'),
        shift_charts=accuracy_charts(results, 'style_shift'),
        shift_sentence=shift_sentence(results) if 'style_shift' in results else '',
        gallery=gallery,
        gallery_note=gallery_note,
        retrieval=rows,
        retrieval_note=rows_note,
        task_charts=task_charts(results),
        task_sentence=task_sentence(results),
        task_caveat=task_caveat(results),
        task_galleries=tasks or [],
        task_notes=skipped_words(results) + ([tasks_note] if tasks_note else []),
        curves=training_curves(work) + task_curves(work),
        run_facts=run_facts(
            results, meta, _teacher_log(work).get('recipe', {})),
        commands=next_steps(work, meta))


def run_facts(results: dict, meta: dict, teacher: dict) -> list[tuple[str, list[tuple]]]:
    """What was run, as titled lists of names and values; of what is not known, nothing."""
    settings = {name: 'yes' if value is True else value
                for name, value in results.get('settings', {}).items()
                if value is not False and isinstance(value, (int, float, str))}
    settings.update({f'teacher {name}': teacher[name] for name in (
        'width', 'layers', 'embed_dim', 'image_size', 'patch_size') if name in teacher})
    if 'seeds' in results:
        settings['seeds'] = ', '.join(map(str, results['seeds']))
    seconds = results.get('seconds') or {}
    times = {stage: duration(value) for stage, value in seconds.items()}
    if times:
        times['all'] = duration(sum(seconds.values()))
    lists = dict(Images=dict(classes=len(meta['classes']), **results.get('sizes', {})),
                 Teacher=results.get('teacher', {}), Settings=settings, Time=times,
                 Versions=results.get('versions', {}))
    return [(title, [(name if title == 'Versions' else name.replace('_', ' '),
                      value if isinstance(value, str) else f'{value:,}')
                     for name, value in pairs.items()]) for title, pairs in lists.items() if pairs]


def _teacher_log(work: Path) -> dict:
    """What the training of the teacher wrote beside it; empty for one that was found elsewhere."""
    teacher = find_teacher(work)
    return _read_json(Path(teacher.spec) / 'log.json', None) if teacher else {}


def accuracy_charts(results: dict, block: str) -> list[Panel]:
    """k-NN and linear probe of a block of ``results.json``; none if the block is not there."""
    kinds = {kind: results[block][kind] for kind in KINDS if kind in results.get(block, {})}
    if not kinds:
        return []
    chance = results.get('chance')
    # One scale for both blocks, so that they can be compared by eye.
    axis = axis_end([chance or 0.0, *(bar.highest for part in ('classification', 'style_shift')
                                      for kind in results.get(part, {})
                                      for bar in _bars(results, part, kind))])
    return [bars(KINDS[kind], _bars(results, block, kind), chance, axis) for kind in kinds]


def _bars(results: dict, block: str, kind: str) -> list[Bar]:
    row = results[block][kind]
    ends = results.get('intervals', {}).get(block, {}).get(kind, {})
    return [Bar(name, label, float(row[name]), row.get(f'{name}_std'),
                tuple(ends[name]) if name in ends else None)
            for name, label in _NAMES.items() if name in row]


def training_curves(work: Path) -> list[Panel]:
    """What the three trainings logged, as far as it is there."""
    milan, mae = (_run(work / name) for name in ('milan', 'mae'))
    teacher = _teacher_log(work).get('curve', [])
    steps = [point['step'] for point in teacher]

    def of(run: RunCurves | None, key: str, label: str, colour: str,
           factor: float = 1) -> list[Series]:
        if run is None or key not in run.curves:
            return []
        steps, values = run.curves[key]
        return [Series(label, colour, steps, values * factor)]

    charts = [
        curves('MILAN: loss', '2 − 2 cos, all tokens', of(milan, 'loss', 'MILAN', 'milan')),
        curves('MILAN: cosine to the teacher', '1 is a perfect prediction',
                    of(milan, 'cos_visible', 'patches seen', 'milan')
                    + of(milan, 'cos_masked', 'patches masked', 'second')),
        curves('Importance seen', 'share of the teacher\'s attention on patches shown',
                    of(milan, 'importance_seen', 'MILAN', 'milan', 100)
                    + of(mae, 'importance_seen', 'if all patches counted the same', 'random', 100),
                    percent=True, include=(0, )),
        curves('MAE: loss', 'squared error of masked pixels', of(mae, 'loss', 'MAE', 'mae')),
        curves('CLIP teacher: loss', 'contrastive, image against caption',
                    [Series('CLIP', 'teacher', steps, [p['loss'] for p in teacher])]),
        curves('CLIP teacher: retrieval', 'images whose own caption in the batch is nearest',
                    [Series('CLIP', 'teacher', steps, [p['accuracy'] for p in teacher])],
                    percent=True, include=(0, )),
    ]
    return [chart for chart in charts if chart is not None]


def next_steps(work: Path, meta: dict) -> list[dict]:
    """Commands that take it further, ready to be pasted into a shell at the project's root."""
    here = os.path.relpath(work, RESOURCES)
    here = str(work.resolve()) if here.startswith('..') else here
    checkpoint = last_checkpoint(work / 'milan')
    steps = [
        dict(why='The same on your own images, one folder a class',
             command='bash tools/quickstart.sh --data-root DIR --work-dir work_dirs/own'),
        dict(why='Mean and spread of three repetitions',
             command='bash tools/quickstart.sh --seeds 3'
             + (' --data-root DIR' if meta.get('kind') == 'own' else '')),
    ]
    if checkpoint is not None:
        steps.append(dict(
            why='Features of any folder of images, from the encoder trained here',
            command=f'.venv/bin/milan extract {here}/milan/{checkpoint.name} '
            '--data DIR --out features.npz --kind cls patches'))
    steps.append(dict(
        why='A ViT-B/16 on your own images, on one GPU; no labels needed',
        command='.venv/bin/milan train configs/milan/own_images.py --data-root DIR'))
    steps.append(dict(
        why='The paper\'s recipe on ImageNet, on 8 GPUs',
        command='bash tools/dist_train.sh configs/milan/vitb_pretrain.py 8 --data-root '
        'data/imagenet/train'))
    return steps


def duration(seconds: float) -> str:
    """72.4 gives '1 min 12 s'."""
    seconds = float(seconds)
    if seconds < 60:
        return f'{seconds:.1f} s' if seconds < 10 else f'{seconds:.0f} s'
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes} min' if hours else f'{minutes} min {rest} s'


def _read_json(path: Path, stage: str | None) -> dict:
    """The content of a file; of one that is missing {}, or an error that names its stage."""
    if not path.is_file():
        if stage is None:
            return {}
        raise MilanError(f'{path} is missing, so there is nothing to report: run the stage '
                         f'"{stage}" first (--stage {stage})')
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise MilanError(f'{path} is no valid JSON ({error}); delete it and run its stage again'
                         ) from error


def _or_reason(make: Callable[[], Any]) -> Any:
    """What is made and '', or None and why it could not be made."""
    try:
        return make(), ''
    except MilanError as error:
        return None, str(error)


def _run(path: Path) -> RunCurves | None:
    try:
        return read_run(path)
    except MilanError:
        return None
