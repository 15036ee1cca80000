# SPDX-License-Identifier: Apache-2.0
"""What a study writes: study.json, table.csv, runs.csv, plot.png and study.html."""
import csv
import functools
import io
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from ...checkpoints.io import write_atomically
from ...reports.charts import Panel, round_ticks, save
from ...reports.page import write_page
from ...reports.provenance import commit, machine, versions
from ...reports.theme import LIGHT
from .differences import config_changes
from .run import StudyRunner
from .study import Study
from .table import Row, as_csv, as_json, as_text, cell_text, make_rows


def write_study(runner: StudyRunner, command: str, minutes: float, page: bool = True) -> list[Row]:
    """Writes what the finished runs say.

    Args:
        runner: of the study.
        command: that was given, for the record.
        minutes: this call has taken so far.
        page: whether the plot and the page are drawn too.

    Returns:
        The rows of the table.
    """
    records = runner.records()
    rows = make_rows(runner.study, records, runner.on_images(records))
    facts = dict(command=command, commit=commit(), minutes=round(minutes, 1), machine=machine(),
                 versions=versions(), jobs=runner.jobs)
    _write(runner.work / 'study.json', json.dumps(
        dict(title=runner.study.title, base=runner.study.base, rows=as_json(rows), runs=records,
             **facts), indent=1) + '\n')
    _write(runner.work / 'table.csv', as_csv(rows))
    _write(runner.work / 'runs.csv', runs_csv(records, runner.study.metrics))
    if page and any(row.figures for row in rows):
        study = runner.study
        panels = metric_panels(rows, study)
        save(panels, runner.work / 'plot.png', columns=4)
        write_page(
            runner.work / 'study.html', 'ablation', study=study, rows=rows, panels=panels,
            verdict=verdict(rows, study), facts=fact_rows(facts), cell_text=cell_text,
            changes={row.name: config_changes(runner.configs[study.base],
                                              runner.configs[row.name]) for row in rows},
            markdown=as_text(rows, study.metrics, markdown=True))
    return rows


def runs_csv(records: Sequence[dict], metrics: Sequence[str]) -> str:
    """One line a run."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(['cell', 'seed', *metrics, 'seconds', 'failed'])
    for record in records:
        figures = record.get('figures', {})
        writer.writerow([record['cell'], record['seed'],
                         *(figures.get(metric, '') for metric in metrics),
                         record.get('seconds', ''), record.get('failed', '')])
    return out.getvalue()


def metric_panels(rows: Sequence[Row], study: Study) -> list[Panel]:
    """A panel a metric: a dot a seed, a bar at the mean, the base's mean as a line."""
    rows = [row for row in rows if row.figures]
    return [Panel(
        f'{metric}, {study.unit}', functools.partial(_draw_metric, rows, metric, study.base),
        '; '.join(f'{row.title} {cell_text(row.figures[metric])}' for row in rows),
        size=(5.0, 0.6 + 0.34 * len(rows))) for metric in study.metrics]


def _draw_metric(rows: Sequence[Row], metric: str, base: str, axes: Axes) -> None:
    for y, row in enumerate(rows):
        figure = row.figures[metric]
        colour = LIGHT['milan' if row.name == base else 'mae' if figure.beyond_spread
                       else 'random']
        axes.plot(list(figure.values.values()), [y] * len(figure.values), 'o', color=colour,
                  alpha=0.5, markersize=6)
        axes.plot([figure.mean] * 2, [y - 0.3, y + 0.3], color=colour, linewidth=3)
        if row.name == base:
            axes.axvline(figure.mean, color=colour, linewidth=1, linestyle=':')
        if y and row.group != rows[y - 1].group:
            axes.axhline(y - 0.5, color=LIGHT['line'], linewidth=1)
    axes.set_yticks(range(len(rows)), [textwrap.shorten(row.title, 30, placeholder=' …')
                                       for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(False, axis='y')
    axes.grid(True, axis='x')
    axes.xaxis.set_major_locator(round_ticks(4))


def verdict(rows: Sequence[Row], study: Study) -> str:
    """Which differences to the base the runs can tell from chance, in a sentence or two."""
    others = [row for row in rows if row.name != study.base and row.figures]
    compared = [(row, metric, row.figures[metric]) for row in others for metric in study.metrics
                if row.figures[metric].difference is not None]
    base, failed = study.cells[study.base].title, sum(len(row.failures) for row in rows)
    told = [(row, metric, f) for row, metric, f in compared if f.beyond_spread]
    if not compared:
        text = f'Nothing is there yet to be compared with {base}.'
    elif all(f.beyond_spread is None for _, _, f in compared):
        text = ('One run a cell: what chance does is not known, so no difference to '
                f'{base} can be told from it.')
    elif not told:
        text = (f'No cell differs from {base} by more than chance could do in so few '
                f'{"images" if any(f.p is not None for _, _, f in compared) else "runs"}.')
    else:
        words = [f'{row.title}, {metric}: {f.difference:+.1f}' + (
            ' points' if study.unit == '%' else '') for row, metric, f in sorted(
                told, key=lambda item: -abs(item[2].difference))]
        text = (f'{len({row.name for row, _, _ in told})} of {len(others)} cells differ from '
                f'{base} by more than chance would explain: {"; ".join(words[:4])}'
                + (f'; and {len(words) - 4} more.' if len(words) > 4 else '.'))
    if any(f.p is not None for _, _, f in compared):
        text += (' One run a cell, tested image by image (McNemar\'s exact test, or its form for '
                 'groups of images): that says nothing about other trainings; more seeds do.')
    return text + (f' Runs that failed: {failed}.' if failed else '')


def fact_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Where the figures come from, as names and values."""
    machine, versions = (', '.join(f'{name} {value}' for name, value in facts[part].items())
                         for part in ('machine', 'versions'))
    return [('command', facts['command']), ('commit', facts['commit'] or 'not a clone'),
            ('this call took', f'{facts["minutes"]} min, {facts["jobs"]} runs at a time'),
            ('machine', machine), ('versions', versions)]


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda part: part.write_bytes(text.encode('utf-8', 'replace')))
