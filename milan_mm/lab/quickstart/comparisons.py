# SPDX-License-Identifier: Apache-2.0
"""Who is ahead, image by image: intervals and paired tests for the quickstart's figures."""
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...errors import MilanError
from ...evaluation.hits import hits_path, read_hits
from ...evaluation.paired import Scores, compare, mean_interval

ENCODERS = ('milan', 'mae', 'random', 'teacher')
BLOCKS = dict(classification='', style_shift='shift.')  # and what its measurements begin with
KINDS = ('knn', 'linear')
_RENDER = re.compile(r'__\d+\.png$')


def group_of(kind: str) -> Callable[[str], str]:
    """From a held-out image to what was drawn at random to be held out.

    Of the demo that is the concept, whose drawings in both styles and renders are alike; of own
    images the file, which a cut-out was rendered from several times.

    Args:
        kind: 'demo' or 'own', of ``data/meta.json``.
    """
    if kind == 'demo':
        return lambda name: f'{Path(name).parent}/{Path(name).name.split("__")[1]}'
    return lambda name: _RENDER.sub('', name)


def compare_encoders(works: Sequence[Path], kind: str) -> dict[str, Any]:
    """Intervals of each encoder, and MILAN against each other one.

    Args:
        works: folder of each repetition.
        kind: see :func:`group_of`.

    Returns:
        ``intervals``: block -> measure -> encoder -> (low, high) in percent. ``paired``: block ->
        measure -> rival -> the fields of :class:`Comparison`. Empty if an evaluation of an earlier
        version kept no hits.
    """
    try:
        runs = {name: [read_hits(hits_path(work / f'eval/{name}.json')) for work in works]
                for name in ENCODERS}
    except MilanError:
        return {}
    group, intervals, paired = group_of(kind), dict[str, Any](), dict[str, Any]()
    for block, prefix in BLOCKS.items():
        for measure in KINDS:
            hits = {name: [run[prefix + measure] for run in row if prefix + measure in run]
                    for name, row in runs.items()}
            if not all(hits.values()):
                continue
            intervals.setdefault(block, {})[measure] = intervals_of(hits, group)
            paired.setdefault(block, {})[measure] = comparisons_of(hits, 'milan', group)
    return dict(intervals=intervals, paired=paired)


def intervals_of(scores: dict[str, list[Scores]],
                 group: Callable[[str], str] | None) -> dict[str, tuple[float, float]]:
    """Of each, where it is known."""
    found = {name: mean_interval(row, group) for name, row in scores.items()}
    return {name: ends for name, ends in found.items() if ends is not None}


def comparisons_of(scores: dict[str, list[Scores]], ours: str,
                   group: Callable[[str], str] | None) -> dict[str, dict]:
    """Of one with each of the others, as plain data."""
    found = {name: compare(scores[ours], row, group) for name, row in scores.items()
             if name != ours}
    return {name: one._asdict() for name, one in found.items() if one is not None}
