# SPDX-License-Identifier: Apache-2.0
"""Cells with one run each, compared with the base over the images that ``milan eval`` measured."""
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import MilanError
from ...evaluation.hits import hits_path, read_hits
from ...evaluation.paired import Comparison, Scores, compare
from ..quickstart.comparisons import group_of
from ..steps import read_json
from .study import Measurement, Study, fill


def compare_on_images(study: Study, work: Path, records: Sequence[dict],
                      places: dict[tuple[str, int], dict[str, Any]],
                      ) -> dict[tuple[str, str], Comparison]:
    """Each cell against the base with the same seed, image by image.

    Args:
        study: what was run.
        work: its folder; ``data/meta.json`` in it, where the quickstart made the images, says
            which of them belong together.
        records: of runs.
        places: (cell, seed) -> what the places in the study's texts stand for.

    Returns:
        (cell, metric) -> comparison, of those with exactly one seed in common with the base whose
        measurements kept the hits of each image.
    """
    done = {(r['cell'], r['seed']) for r in records if 'figures' in r}
    kind = read_json(work / 'data/meta.json').get('kind')
    found = {}
    for cell in study.cells:
        seeds = [seed for name, seed in done if name == cell and (study.base, seed) in done]
        if cell == study.base or len(seeds) != 1:
            continue
        ours, base = (_scores(study.measure, places[name, seeds[0]])
                      for name in (cell, study.base))
        for metric in ours.keys() & base.keys():
            one = compare([ours[metric]], [base[metric]], group_of(kind) if kind else None)
            if one is not None:
                found[cell, metric] = one
    return found


def _scores(measure: Sequence[Measurement], places: dict[str, Any]) -> dict[str, Scores]:
    """Metric -> which images were right, as far as it was kept."""
    found = {}
    for one in measure:
        try:
            hits = read_hits(hits_path(fill(one.reads, places)))
        except MilanError:
            continue
        found.update({title: hits[place.removesuffix('.top1')]
                      for title, place in one.metrics.items()
                      if place.removesuffix('.top1') in hits})
    return found
