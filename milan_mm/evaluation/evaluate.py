# SPDX-License-Identifier: Apache-2.0
"""What an encoder is worth on labelled images: k-NN, linear probe, collapse."""
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor

from ..datasets import ImageFolder
from ..datasets.labelled import commonest_share
from ..errors import MilanError
from ..inference.encoders import Extractor
from .collapse import collapse_measures
from .features import FeatureTable, collect_features, evaluation_mode, image_folder
from .knn import check_features, check_voting, knn_classes, top_k
from .linear_probe import probe_classes
from .protocols import check_more, headline, measure_more, rows


class Options(NamedTuple):
    """How to measure.

    Attributes:
        knn, linear: which of the two.
        k, temperature: see :func:`knn_classes`.
        probe: the solver, see :func:`probe_classes`.
        probe_options: of the solver.
        device: where all is computed.
        seed: of the 'lars' solver, the few-shot draws and partial finetuning.
        few_shot: labelled images a class, such as (1, 2, 5, 10); see :func:`few_shot`.
        draws: of them.
        retrieval: 'gallery' or 'leave-one-out' (among the queries); see :func:`retrieval_map`.
        partial: numbers of last blocks to finetune; see :func:`partial_finetune`.
        partial_options: of that.
    """
    knn: bool = True
    linear: bool = True
    k: int = 20
    temperature: float = 0.07
    probe: str = 'lbfgs'
    probe_options: dict[str, Any] = {}
    device: str = 'cpu'
    seed: int = 0
    few_shot: tuple[int, ...] = ()
    draws: int = 5
    retrieval: str | None = None
    partial: tuple[int, ...] = ()
    partial_options: dict[str, Any] = {}


def evaluate(extractor: Extractor,
             gallery: str | Path,
             queries: str | Path,
             feature: str = 'cls',
             options: Options | None = None,
             shift: Sequence[str] | None = None,
             batch_size: int = 64,
             workers: int = 2,
             progress: bool = True) -> dict[str, Any]:
    """Measures an encoder on two labelled folders, ``FOLDER/<class>/<images>``.

    Args:
        extractor: of :func:`milan_mm.get_model` or
            :func:`milan_mm.inference.encoders.get_teacher`, on the device to compute on.
        gallery: the folder whose classes are known: k-NN's gallery, the probe's training set.
        queries: the folder to classify; its classes are among the gallery's.
        feature: 'cls', 'pooled', or 'both': CLS, and the mean of the patches beside it.
        options: how to measure; None for the defaults.
        shift: two prefixes of file names, such as drawing styles. Also measured is then the
            gallery limited to the one and the queries to the other, both ways, and the mean.
        batch_size, workers: see :func:`collect_features`.
        progress: whether to show it on the terminal.

    Returns:
        Plain data for JSON: ``knn`` and ``linear`` (``top1``, ``top5`` and settings; percent),
        where asked for ``few_shot``, ``retrieval`` and ``partial``,
        ``collapse`` of the queries' features, ``shift``, ``sizes``, ``unreadable``; ``chance``, the
        percentage of the queries that naming always their commonest class gets right;
        of 'both', ``pooled`` holds ``knn`` and ``linear`` of the mean of the patches.
        ``predictions`` has for each query its name below the folder, its label, and by
        measurement ('knn', 'pooled.linear', 'shift.knn') the label it was given, -1 for none; see
        :mod:`milan_mm.evaluation.hits`.

    Raises:
        MilanError: if the folders do not fit together or a prefix selects nothing.
    """
    options = options or Options()
    if feature not in ('cls', 'pooled', 'both'):
        raise MilanError(f"feature must be 'cls', 'pooled' or 'both', got {feature!r}")
    feature, *others = ('cls', 'pooled') if feature == 'both' else (feature, )
    folders = [image_folder(extractor, root, with_label=True) for root in (gallery, queries)]
    of_gallery, of_queries = (folder.metainfo['classes'] for folder in folders)
    check_classes(of_gallery, of_queries, gallery, queries)
    _check(options, extractor, folders, shift)
    with evaluation_mode(extractor):
        known, asked = (
            collect_features(extractor, folder, (feature, *others), batch_size, workers,
                             name if progress else None)
            for folder, name in zip(folders, ('gallery', 'queries')))
    asked = relabelled(asked, known.classes)
    given: dict[str, Tensor] = {}
    result = {
        'feature': feature,
        'img_size': list(extractor.img_size),
        'crop_ratio': extractor.crop_ratio,
        'classes': list(known.classes),
        'chance': commonest_share(asked.labels.bincount().tolist()),
        'sizes': {'gallery': len(known.paths), 'queries': len(asked.paths)},
        'unreadable': known.unreadable + asked.unreadable,
        **measure(known, asked, feature, options, extractor, given),
        'collapse': collapse_measures(asked.features[feature]) if len(asked.paths) > 1 else None,
    }
    for other in others:
        of_other: dict[str, Tensor] = {}
        result[other] = measure(known, asked, other, options, extractor, of_other)
        given.update({f'{other}.{kind}': labels for kind, labels in of_other.items()})
    if shift is not None:
        result['shift'] = measure_shift(known, asked, feature, shift, options, extractor, given)
    return {**result, 'predictions': {
        'names': [os.path.relpath(path, Path(queries).expanduser()) for path in asked.paths],
        'classes': list(known.classes), 'labels': asked.labels.tolist(),
        **{kind: labels.tolist() for kind, labels in given.items()}}}


def measure(known: FeatureTable, asked: FeatureTable, feature: str, options: Options,
            extractor: Extractor | None = None,
            given: dict[str, Tensor] | None = None) -> dict[str, Any]:
    """``knn``, ``linear`` and so on of two tables that share their labels.

    Args:
        known, asked: the tables.
        feature: 'cls' or 'pooled'.
        options: how to measure.
        extractor: what the tables are of; for partial finetuning alone.
        given: receives the label that each query got, (m,), by 'knn' and 'linear'.
    """
    data = (known.features[feature], known.labels, asked.features[feature])
    check_features(data[2], asked.labels, 'queries')
    classes = len(known.classes)
    result: dict[str, Any] = {}
    given = {} if given is None else given
    if options.knn:
        ranked = knn_classes(*data, classes, options.k, options.temperature,
                             device=options.device)
        given['knn'] = ranked[:, 0]
        result['knn'] = dict(top_k(ranked, asked.labels), k=options.k,
                             temperature=options.temperature)
    if options.linear:
        ranked, said = probe_classes(*data, classes, options.probe, options.device, options.seed,
                                     **options.probe_options)
        given['linear'] = ranked[:, 0]
        result['linear'] = dict(top_k(ranked, asked.labels), **said)
    return {**result, **measure_more(known, asked, feature, options, extractor)}


def measure_shift(known: FeatureTable, asked: FeatureTable, feature: str, prefixes: Sequence[str],
                  options: Options, extractor: Extractor | None = None,
                  given: dict[str, Tensor] | None = None) -> dict[str, Any]:
    """Gallery of one prefix, queries of the other, both ways.

    Queries of a class that the limited gallery lacks are left out and counted.

    Args:
        known, asked, feature, options, extractor: see :func:`measure`.
        prefixes: the two.
        given: receives, by 'shift.knn' and 'shift.linear', the label that each of ``asked`` got
            from the gallery of the other prefix, -1 for none.

    Returns:
        ``knn``, ``linear`` and what else is measured: mean of the two ways, in percent, by the
        names of :func:`headline`; ``directions``: each way.
    """
    first, second = prefixes
    directions = []
    for here, there in ((first, second), (second, first)):
        gallery = _rows(known, _with_prefix(known, here, 'gallery'))
        chosen = _with_prefix(asked, there, 'queries')
        possible = chosen & torch.isin(asked.labels, gallery.labels)
        if not possible.any():
            raise MilanError(f'--shift: no class of the queries {there!r} is in the gallery '
                             f'{here!r}')
        queries, of_way = _rows(asked, possible), dict[str, Tensor]()
        directions.append({
            'gallery': here, 'queries': there,
            'queries_left_out': int((chosen & ~possible).sum()),
            'sizes': {'gallery': len(gallery.paths), 'queries': len(queries.paths)},
            **measure(gallery, queries, feature, options, extractor, of_way)})
        for kind, labels in of_way.items() if given is not None else ():
            nothing = torch.full((len(asked.paths), ), -1)
            given.setdefault(f'shift.{kind}', nothing)[possible] = labels
    figures = [headline(direction) for direction in directions]
    means = {kind: sum(figure[kind] for figure in figures) / 2 for kind in figures[0]}
    return {**means, 'directions': directions}


def _check(options: Options, extractor: Extractor, folders: Sequence[ImageFolder],
           shift: Sequence[str] | None) -> None:
    """Refuses what cannot be measured before the features are computed."""
    if options.knn:
        check_voting(options.k, options.temperature)
    check_more(options, extractor)
    for folder, where in zip(folders, ('gallery', 'queries')):
        for prefix in shift or ():
            names = (os.path.basename(folder.path(i)) for i in range(len(folder)))
            if not any(name.startswith(prefix) for name in names):
                raise _no_such_prefix(prefix, where, folder.path(0))


def check_classes(known: tuple[str, ...], asked: tuple[str, ...], gallery: str | Path,
                   queries: str | Path) -> None:
    """Raises MilanError where a class that is asked has no examples, or there is but one."""
    strange = sorted(set(asked) - set(known))
    if strange:
        raise MilanError(f'{queries} has {len(strange)} classes that {gallery} has not, such as '
                         f'{strange[0]}; nothing could be classified as them')
    if len(known) < 2:
        raise MilanError(f'{gallery} has {len(known)} class folder(s), expected at least 2')
    absent = len(set(known) - set(asked))
    if absent:
        print_log(f'{absent} of {len(known)} classes of {gallery} have no image in {queries}',
                  logger='current', level=30)


def relabelled(table: FeatureTable, classes: tuple[str, ...]) -> FeatureTable:
    """The same table with labels that count in ``classes``."""
    number = {name: i for i, name in enumerate(classes)}
    new = torch.tensor([number[name] for name in table.classes], dtype=torch.long)
    return table._replace(labels=new[table.labels], classes=classes)


def _with_prefix(table: FeatureTable, prefix: str, where: str) -> Tensor:
    chosen = [os.path.basename(path).startswith(prefix) for path in table.paths]
    if not any(chosen):
        raise _no_such_prefix(prefix, where, table.paths[0])
    return torch.tensor(chosen, dtype=torch.bool)


def _no_such_prefix(prefix: str, where: str, path: str) -> MilanError:
    return MilanError(f'--shift: no file name in the {where} starts with {prefix!r}; there are '
                      f'names such as {os.path.basename(path)}')


def _rows(table: FeatureTable, chosen: Tensor) -> FeatureTable:
    return table._replace(
        features={kind: value[chosen] for kind, value in table.features.items()},
        labels=table.labels[chosen],
        paths=[path for path, keep in zip(table.paths, chosen.tolist()) if keep])


def summary(result: dict[str, Any]) -> str:
    """The result of :func:`evaluate` as a small table."""
    sizes = result['sizes']
    lines = [f'{sizes["gallery"]} images in the gallery, {sizes["queries"]} queries, '
             f'{len(result["classes"])} classes; naming always the commonest is right for '
             f'{result["chance"]:.1f} %',
             f'feature {result["feature"]}, images {result["img_size"][0]} x '
             f'{result["img_size"][1]}, central crop {result["crop_ratio"]:g} of what fits']
    for kind, title in (('knn', 'k-NN'), ('linear', 'linear probe')):
        if kind not in result:
            continue
        how = result[kind]
        row = f'{title:<14}top-1 {how["top1"]:6.2f} %'
        if 'top5' in how:
            row += f'   top-5 {how["top5"]:6.2f} %'
        if 'shift' in result:
            row += f'   shifted {result["shift"][kind]:6.2f} %'
        told = ', '.join(f'{name} {value:g}' if isinstance(value, float) else f'{name} {value}'
                         for name, value in how.items()
                         if name not in ('top1', 'top5', 'augmentation'))
        lines.append(f'{row}   ({told})')
    for kind, title in (('knn', 'k-NN'), ('linear', 'linear probe')):
        if kind in result.get('pooled', {}):
            lines.append(f'{title:<14}top-1 {result["pooled"][kind]["top1"]:6.2f} %   (mean of the '
                         'patches)')
    lines += rows(result)
    lines += [f'{line}   (mean of the patches)' for line in rows(result.get('pooled', {}))]
    if result['collapse']:
        lines.append('collapse      ' + ', '.join(
            f'{name} {value:.3g}' for name, value in result['collapse'].items()))
    if result['unreadable']:
        lines.append(f'{len(result["unreadable"])} images could not be decoded and are left out')
    return '\n'.join(lines)
