# SPDX-License-Identifier: Apache-2.0
"""The quickstart's figures, brought together."""
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...reports.provenance import versions
from .advice import training_facts
from .comparisons import ENCODERS
from .task_comparisons import compare_all
from .tasks import TASKS, collect_task, task_table
from .teacher import noted_teacher


def collect_results(settings: Any, seconds: dict[str, float],
                    skipped: dict[str, str] | None = None) -> dict:
    """Reads ``eval/*.json`` and ``data/meta.json`` of one repetition.

    Args:
        settings: of the repetition, a ``stages.Settings``.
        seconds: of each stage.
        skipped: stage -> why it could not be done.

    Returns:
        What ``results.json`` holds. Accuracies are top-1; all measures are in percent.
    """
    work = settings.work
    measured = {name: json.loads((work / f'eval/{name}.json').read_text()) for name in ENCODERS}
    meta = json.loads((work / 'data/meta.json').read_text(encoding='utf-8'))
    result = dict(
        classification={
            kind: {name: measured[name][kind]['top1'] for name in ENCODERS}
            for kind in ('knn', 'linear')
        },
        chance=meta['chance'],
        classes=len(meta['classes']),
        sizes=meta['sizes'],
        seconds=seconds,
        versions=versions(),
        teacher=noted_teacher(work)._asdict(),
        seeds=[settings.seed],
        groups='concepts' if meta['kind'] == 'demo' else 'images',
        training={name: training_facts(work / name) for name in ('milan', 'mae')},
        **compare_all([work], meta['kind']),
        settings=dict(settings.plan._asdict(), quick=settings.quick,
                      images=settings.images or 'demo', styles=meta['styles']))
    if all('shift' in m for m in measured.values()):
        result['style_shift'] = {
            kind: {name: measured[name]['shift'][kind] for name in ENCODERS}
            for kind in ('knn', 'linear')
        }
    for name in TASKS:
        measured = collect_task(name, work)
        if measured:
            result[name] = measured
    if skipped:
        result['skipped'] = skipped
    return result


def summarise_seeds(results: list[dict], works: Sequence[Path] = ()) -> dict:
    """Means over repetitions, with ``<name>_std`` (sample standard deviation) beside each.

    Args:
        results: of each repetition.
        works: its folder, for the comparisons over all images and repetitions.
    """
    kind = 'demo' if results[0].get('groups') == 'concepts' else 'own'
    first = {key: value for key, value in results[0].items() if key not in ('paired', 'intervals')}
    summary = dict(first, **compare_all(works, kind) if works else {}, seeds=[
        r['seeds'][0] for r in results], each_seed=[
        {block: r[block] for block in ('classification', 'style_shift', 'seconds', *TASKS)
         if block in r}
        for r in results])
    for block in ('classification', 'style_shift'):
        if block not in results[0]:
            continue
        summary[block] = {}
        for kind in ('knn', 'linear'):
            summary[block][kind] = _spread([r[block][kind] for r in results])
    for name in TASKS:  # without --full only the first repetition has them: no spread then
        if all(name in r for r in results):
            summary[name] = {start: _spread([r[name][start] for r in results])
                             for start in results[0][name]}
    summary['seconds'] = {
        stage: round(sum(r['seconds'].get(stage, 0) for r in results), 1)
        for stage in results[0]['seconds']
    }
    return summary


def _spread(rows: list[dict[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        found[name], found[f'{name}_std'] = statistics.mean(values), statistics.stdev(values)
    return found


def table(result: dict) -> str:
    """The result for a terminal."""
    lines = ['', f'held-out images, top-1 accuracy in percent (chance {result["chance"]:.1f})',
             f'{"":24}' + ''.join(f'{name:>14}' for name in reversed(ENCODERS))]
    rows = [('k-NN', 'classification', 'knn'), ('linear probe', 'classification', 'linear'),
            ('other style, k-NN', 'style_shift', 'knn'),
            ('other style, linear', 'style_shift', 'linear')]
    for label, block, kind in rows:
        if block in result:
            row = result[block][kind]
            cells = [f'{row[n]:.1f}' + (f' ±{row[n + "_std"]:.1f}' if f'{n}_std' in row else '')
                     for n in reversed(ENCODERS)]
            lines.append(f'{label:24}' + ''.join(f'{cell:>14}' for cell in cells))
    if 'teacher' in result:
        lines += ['', f'teacher: {result["teacher"]["spec"]} ({result["teacher"]["reason"]})']
    return '\n'.join(lines + task_table(result))
