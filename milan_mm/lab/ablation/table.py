# SPDX-License-Identifier: Apache-2.0
"""From the runs of a study to its table: means, spreads, paired differences to the base."""
import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...evaluation.paired import ALPHA, Comparison
from .study import Study

LEVEL = 0.95  # of the confidence interval


class Figure(NamedTuple):
    """A metric of a cell.

    Attributes:
        values: seed -> value.
        mean: of them.
        sd: sample standard deviation; None of a single one.
        difference: mean over seeds of this cell less the base with the same seed; None of the
            base itself and without a common seed.
        low, high: 95 % confidence interval of it, by Student's t over seeds; of one seed, by the
            bootstrap over images where they are known; else None.
        p: of one seed, by the paired test over images; None otherwise.
    """
    values: dict[int, float]
    mean: float
    sd: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def beyond_spread(self) -> bool | None:
        """Whether p is below .05, or the interval leaves 0 out; None where there is neither."""
        if self.p is not None:
            return self.p < ALPHA
        return None if self.low is None else not self.low <= 0 <= self.high


class Row(NamedTuple):
    """A cell of the study.

    Attributes:
        name, title, group: of the cell.
        figures: by metric; empty if no run succeeded.
        failures: seed -> why it failed.
        seconds: mean of a run, training and measuring.
    """
    name: str
    title: str
    group: str
    figures: dict[str, Figure]
    failures: dict[int, str]
    seconds: float | None


def make_rows(study: Study, records: Sequence[dict],
              on_images: Mapping[tuple[str, str], Comparison] | None = None) -> list[Row]:
    """One row a cell, in the study's order; cells without any record are left out.

    Args:
        study: what was run.
        records: of runs: ``cell``, ``seed``, and ``figures`` and ``seconds``, or ``failed``.
        on_images: of :func:`.images.compare_on_images`, for cells with one seed.
    """
    done: dict[str, dict[int, dict]] = {}
    for record in records:
        done.setdefault(record['cell'], {})[record['seed']] = record
    rows = []
    for name, cell in study.cells.items():
        if name not in done:
            continue
        good = {seed: r for seed, r in sorted(done[name].items()) if 'figures' in r}
        base = {seed: r for seed, r in done.get(study.base, {}).items() if 'figures' in r}
        figures = {}
        for metric in study.metrics if good else ():
            values = {seed: r['figures'][metric] for seed, r in good.items()}
            against = {} if name == study.base else {
                seed: r['figures'][metric] for seed, r in base.items()}
            figures[metric] = compare(values, against)
            one = (on_images or {}).get((name, metric))
            if one is not None and figures[metric].low is None:
                figures[metric] = figures[metric]._replace(low=one.low, high=one.high, p=one.p)
        rows.append(Row(
            name, cell.title, cell.group, figures,
            {seed: r['failed'] for seed, r in sorted(done[name].items()) if 'failed' in r},
            statistics.mean(r['seconds'] for r in good.values()) if good else None))
    return rows


def compare(values: dict[int, float], base: dict[int, float]) -> Figure:
    """A cell's values, and their paired differences to the base's.

    Seeds are paired: the same images, masks and first weights, so that what they have in common
    does not count as spread.
    """
    sd = statistics.stdev(values.values()) if len(values) > 1 else None
    figure = Figure(values, statistics.mean(values.values()), sd)
    pairs = [values[seed] - base[seed] for seed in values if seed in base]
    if not pairs:
        return figure
    figure = figure._replace(difference=statistics.mean(pairs))
    if len(pairs) > 1:
        half = _t_quantile(len(pairs) - 1) * statistics.stdev(pairs) / math.sqrt(len(pairs))
        figure = figure._replace(low=figure.difference - half, high=figure.difference + half)
    return figure


def as_json(rows: Sequence[Row]) -> list[dict]:
    """The rows as plain data."""
    return [dict(row._asdict(), figures={
        metric: dict(f._asdict(), beyond_spread=f.beyond_spread)
        for metric, f in row.figures.items()}) for row in rows]


def as_csv(rows: Sequence[Row]) -> str:
    """One line a cell and metric."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(['cell', 'group', 'title', 'metric', 'seeds', 'mean', 'sd', 'difference',
                     'low95', 'high95', 'beyond_spread', 'failed'])
    for row in rows:
        for metric, f in row.figures.items():
            figures = (f.mean, f.sd, f.difference, f.low, f.high)
            writer.writerow([row.name, row.group, row.title, metric, len(f.values),
                             *('' if v is None else f'{v:.4f}' for v in figures),
                             '' if f.beyond_spread is None else f.beyond_spread,
                             len(row.failures)])
        if not row.figures:
            writer.writerow([row.name, row.group, row.title, '', 0, *[''] * 6, len(row.failures)])
    return out.getvalue()


def as_text(rows: Sequence[Row], metrics: Sequence[str], markdown: bool = False) -> str:
    """The table for a terminal, or for a page of documentation.

    ``*`` marks a difference to the base whose 95 % interval leaves 0 out.
    """
    lines = [['', *metrics]]
    for row in rows:
        lines.append([row.title, *(cell_text(row.figures.get(metric)) for metric in metrics)])
    if markdown:
        lines.insert(1, ['---'] * (len(metrics) + 1))
        return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
    widths = [max(len(line[i]) for line in lines) for i in range(len(metrics) + 1)]
    return '\n'.join('  '.join(text.ljust(width) for text, width in zip(line, widths)).rstrip()
                     for line in lines)


def cell_text(figure: Figure | None) -> str:
    """Such as ``35.2 ± 1.3 (-2.1*)``."""
    if figure is None:
        return 'failed'
    text = f'{figure.mean:.1f}' + ('' if figure.sd is None else f' ± {figure.sd:.1f}')
    if figure.difference is not None:
        text += f' ({figure.difference:+.1f}{"*" if figure.beyond_spread else ""})'
    return text


def _t_quantile(degrees: int) -> float:
    """Of Student's t, such that so much lies within plus and minus it."""
    from scipy.stats import t  # slow to import, and needed once
    return float(t.ppf((1 + LEVEL) / 2, degrees))

