# SPDX-License-Identifier: Apache-2.0
"""Few-shot, retrieval and partial finetuning beside k-NN and the probe, in the same results."""
from typing import Any

from ..errors import MilanError
from ..inference.encoders import Extractor
from .features import FeatureTable
from .few_shot import check_shots, few_shot
from .partial import check_partial, partial_finetune
from .retrieval import retrieval_map


def check_more(options: Any, extractor: Extractor) -> None:
    """What :func:`measure_more` would refuse, before hours are spent on what comes before it.

    Raises:
        MilanError: for settings that cannot be measured.
    """
    if options.few_shot:
        check_shots(options.few_shot, options.draws)
    if options.retrieval not in (None, 'gallery', 'leave-one-out'):
        raise MilanError(f"retrieval must be 'gallery' or 'leave-one-out', got "
                         f'{options.retrieval!r}')
    for blocks in options.partial:
        check_partial(extractor, blocks, **options.partial_options)


def measure_more(known: FeatureTable, asked: FeatureTable, feature: str, options: Any,
                 extractor: Extractor | None) -> dict[str, Any]:
    """``few_shot``, ``retrieval`` and ``partial``, those that the options ask for.

    Args:
        known: whose classes are known.
        asked: to be classified; labels as of ``known``.
        feature: 'cls' or 'pooled'.
        options: :class:`milan_mm.evaluation.evaluate.Options`.
        extractor: what the tables are of; needed for ``partial`` alone.
    """
    gallery = (known.features[feature], known.labels)
    queries = (asked.features[feature], asked.labels)
    result: dict[str, Any] = {}
    if options.few_shot:
        result['few_shot'] = few_shot(
            *gallery, *queries, len(known.classes), options.few_shot, options.draws, options.seed,
            options.device)
    if options.retrieval == 'gallery':
        result['retrieval'] = retrieval_map(*gallery, *queries, device=options.device)
    elif options.retrieval == 'leave-one-out':
        result['retrieval'] = retrieval_map(*queries, *queries, True, options.device)
    if options.partial:
        result['partial'] = [
            partial_finetune(extractor, (known.paths, known.labels), (asked.paths, asked.labels),
                             len(known.classes), blocks, feature, seed=options.seed,
                             **options.partial_options)
            for blocks in options.partial]
    return result


def headline(result: dict[str, Any]) -> dict[str, float]:
    """The one figure of each measurement, in percent: 'knn', 'few_shot_5', 'partial_2', …."""
    found: dict[str, float] = {
        kind: result[kind]['top1'] for kind in ('knn', 'linear') if kind in result}
    for row in result.get('few_shot', {}).get('shots', ()):
        found[f'few_shot_{row["shots"]}'] = row['linear']['top1']
    if 'retrieval' in result:
        found['map'] = result['retrieval']['map']
    for row in result.get('partial', ()):
        found[f'partial_{row["blocks"]}'] = row['top1']
    return found


def rows(result: dict[str, Any]) -> list[str]:
    """Lines for the terminal."""
    shift = result.get('shift', {})

    def shifted(kind: str) -> str:
        return f'   shifted {shift[kind]:6.2f} %' if kind in shift else ''

    lines = []
    for row in result.get('few_shot', {}).get('shots', ()):
        linear, centroid = row['linear'], row['centroid']
        short = f', {row["short"]} classes have fewer' if row['short'] else ''
        lines.append(
            f'{row["shots"]:>2} a class    top-1 {linear["top1"]:6.2f} ± {linear["sd"]:.2f} %'
            f'{shifted("few_shot_" + str(row["shots"]))}   (linear; nearest class mean '
            f'{centroid["top1"]:.2f} ± {centroid["sd"]:.2f}; {len(linear["draws"])} draws{short})')
    if 'retrieval' in result:
        how = result['retrieval']
        left = f', {how["left_out"]} left out' if how['left_out'] else ''
        lines.append(f'{"retrieval":<14}mAP   {how["map"]:6.2f} %{shifted("map")}   (first right '
                     f'{how["first"]:.2f} %, {how["mode"]}, {how["queries"]} queries{left})')
    for row in result.get('partial', ()):
        name = 'last block' if row['blocks'] == 1 else f'last {row["blocks"]} blocks'
        lines.append(f'{name:<14}top-1 {row["top1"]:6.2f} %'
                     f'{shifted("partial_" + str(row["blocks"]))}   (of {row["of"]}, finetuned for '
                     f'{row["epochs"]} epochs, batch {row["batch_size"]}, lr {row["lr"]:g})')
    return lines
