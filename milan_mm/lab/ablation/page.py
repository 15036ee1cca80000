# SPDX-License-Identifier: Apache-2.0
"""What a study writes: study.json, table.csv, runs.csv, plot.png and study.html."""
import base64
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure as Canvas

from ...checkpoints.io import write_atomically
from ...reports.provenance import commit, machine, versions
from .differences import config_changes
from .run import StudyRunner
from .table import Row, as_csv, as_json, as_text, cell_text, make_rows

_BASE, _OTHER, _BEYOND = '#2563a8', '#8a8f98', '#c2410c'


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
    rows = make_rows(runner.study, records)
    facts = dict(command=command, commit=commit(), minutes=round(minutes, 1), machine=machine(),
                 versions=versions(), jobs=runner.jobs)
    _write(runner.work / 'study.json', json.dumps(
        dict(title=runner.study.title, base=runner.study.base, rows=as_json(rows), runs=records,
             **facts), indent=1) + '\n')
    _write(runner.work / 'table.csv', as_csv(rows))
    _write(runner.work / 'runs.csv', runs_csv(records, runner.study.metrics))
    if page and any(row.figures for row in rows):
        image = plot(rows, runner.study.metrics, runner.study.base)
        write_atomically(runner.work / 'plot.png', lambda path: path.write_bytes(image))
        _write(runner.work / 'study.html', render(runner, rows, image, facts))
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


def plot(rows: Sequence[Row], metrics: Sequence[str], base: str) -> bytes:
    """A panel a metric: a dot a seed, a bar at the mean, the base's mean as a line; PNG."""
    rows = [row for row in rows if row.figures]
    canvas = Canvas(figsize=(3.2 + 3.4 * len(metrics), 1.2 + 0.34 * len(rows)),
                    layout='constrained')
    panels = canvas.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics):
        for y, row in enumerate(rows):
            figure = row.figures[metric]
            colour = _BASE if row.name == base else _BEYOND if figure.beyond_spread else _OTHER
            axes.plot(list(figure.values.values()), [y] * len(figure.values), 'o', color=colour,
                      alpha=0.45, markersize=4.5, markeredgewidth=0)
            axes.plot([figure.mean] * 2, [y - 0.32, y + 0.32], color=colour, linewidth=2.5)
            if row.name == base:
                axes.axvline(figure.mean, color=_BASE, linewidth=0.8, linestyle=':')
        axes.set(title=metric, yticks=range(len(rows)))
        axes.set_yticklabels([row.title for row in rows])
        axes.grid(axis='x', alpha=0.25)
        axes.spines[['top', 'right', 'left']].set_visible(False)
        axes.tick_params(axis='y', length=0)
    for y in range(1, len(rows)):
        if rows[y].group != rows[y - 1].group:
            for axes in panels:
                axes.axhline(y - 0.5, color='#d0d4da', linewidth=0.8)
    panels[0].invert_yaxis()
    out = io.BytesIO()
    canvas.savefig(out, format='png', dpi=130)
    return out.getvalue()


def render(runner: StudyRunner, rows: Sequence[Row], image: bytes, facts: dict[str, Any]) -> str:
    """The page; it works offline, and the template engine escapes what it shows."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    study = runner.study
    changes = {row.name: config_changes(runner.configs[study.base], runner.configs[row.name])
               for row in rows}
    return environment.get_template('page.html.j2').render(
        study=study, rows=rows, changes=changes, facts=facts, cell_text=cell_text,
        markdown=as_text(rows, study.metrics, markdown=True),
        image=base64.b64encode(image).decode())


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda part: part.write_bytes(text.encode('utf-8', 'replace')))
