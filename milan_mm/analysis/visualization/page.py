# SPDX-License-Identifier: Apache-2.0
"""The page of :func:`visualize`: one file that asks nothing of any server and runs no script."""
from pathlib import Path
from typing import NamedTuple

from ...reports import page as pages
from ...reports.charts import Panel, Series, curves
from .tiles import Painter, TileRow, number, percent, seen_masked
from .views import Views


class PageRow(NamedTuple):
    """An image: its name, numbers, rows of panels, and the file of its sheet."""
    name: str
    facts: dict[str, float]
    rows: list[TileRow]
    sheet: str


def write_page(path: Path, rows: list[PageRow], views: Views, painter: Painter, source: str,
               measure: str, masked_only: bool) -> Path:
    """Writes the page; what comes from files' names is escaped by the template engine.

    Args:
        path: path of the page.
        rows: one for each image.
        views: views of all images.
        painter: that made the rows.
        source: what the model is called.
        measure: what the predictions are measured by: 'cos' or 'mse', or '' where there are none.
        masked_only: whether the training's loss was that of masked patches alone.
    """
    return pages.write_page(
        path,
        'visualization',
        images=rows,
        means=mean_facts(rows),
        source=source,
        measure=measure,
        trained=views.trained.ratio,
        patches=views.grid[0] * views.grid[1],
        draws=views.masks.shape[1],
        highest=painter.highest,
        with_importance=views.importance is not None,
        with_teacher=views.teacher is not None,
        painted=views.trained.painted is not None,
        masked_only=masked_only,
        with_neighbours=any(row.title.startswith('Nearest') for row in rows[0].rows),
        panel=ratio_chart(views, measure) if measure else None,
        table=[(one.ratio, *seen_masked(one)) for one in views.attempts] if measure else [],
        number=number,
        percent=percent)


def mean_facts(rows: list[PageRow]) -> dict[str, float]:
    """The numbers of the images, averaged."""
    return {name: sum(row.facts[name] for row in rows) / len(rows) for name in rows[0].facts}


def ratio_chart(views: Views, measure: str) -> Panel | None:
    """The mean measure over the share masked, on patches seen and on the others."""
    if len(views.attempts) < 2:
        return None
    ratios = [100 * one.ratio for one in views.attempts]
    seen, masked = zip(*(seen_masked(one) for one in views.attempts))
    panel = curves(
        f'Mean {measure} over the share of patches masked, in percent', '',
        [Series('patches seen', 'second', ratios, seen),
         Series('patches masked', 'milan', ratios, masked)],
        include=(1, ) if measure == 'cos' else (0, ))
    return panel and panel._replace(summary='; '.join(
        f'{ratio:g} % masked: {a:.2f} on patches seen, {b:.2f} on masked ones'
        for ratio, a, b in zip(ratios, seen, masked)))
