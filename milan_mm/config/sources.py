# SPDX-License-Identifier: Apache-2.0
"""What ``--data-root`` names: folders, lists or shards, one or several with weights."""
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..datasets.decoding import SUFFIXES
from ..datasets.keyed_images import KeyedImages
from ..datasets.lists import LISTS
from ..errors import MilanError
from ..registry import DATASETS
from .data_paths import LOADERS, datasets_of, move_data

Roots = str | Path | Sequence[str | Path]


def move_to(cfg: Config, roots: Roots) -> None:
    """Points a config at other data; see :func:`split_weight` and :func:`move_data`.

    Raises:
        MilanError: if several are given for a config whose sets are not pretraining's.
    """
    parts = [roots] if isinstance(roots, (str, Path)) else list(roots)
    pairs = [split_weight(part) for part in parts]
    if len(pairs) == 1:
        move_data(cfg, pairs[0][0])
        return
    dataset = cfg.train_dataloader.dataset
    if cfg.get('data_root') is not None or not dataset.type.endswith('ImageFolder'):
        raise MilanError(f'{len(parts)} times --data-root: only pretraining mixes several sources; '
                         'this config takes one folder')
    suffixes = dataset.get('suffixes') or SUFFIXES
    sources = [_source(dict(type='milan_mm.ImageFolder', data_root=root, suffixes=suffixes))
               for root, _ in pairs]
    cfg.train_dataloader.dataset = dict(
        type='milan_mm.ImageMixture', datasets=sources, weights=[weight for _, weight in pairs],
        pipeline=dataset.pipeline, fixed_views=dataset.get('fixed_views'))


def split_weight(root: str | Path) -> tuple[str, float]:
    """``DIR`` or ``DIR:2`` as a path and its weight; a path that is there is never split.

    Raises:
        MilanError: if the weight is not above 0.
    """
    path, _, tail = str(root).rpartition(':')
    if not path or Path(root).expanduser().exists():
        return str(root), 1.
    try:
        weight = float(tail)
    except ValueError:
        return str(root), 1.
    if not 0 < weight < float('inf'):
        raise MilanError(f'--data-root {root}: a weight must be above 0, got {tail}')
    return path, weight


def name_kinds(cfg: Config) -> None:
    """Where a set of images says folder and its root is a list or shards, it says so from now on.

    Of a root with ``train`` and ``val`` in it, ``train.csv`` and ``val.csv`` (or another of
    :data:`LISTS`) will do, too.
    """
    for name in LOADERS:
        loader = cfg.get(name) or {}
        for dataset in datasets_of(loader.get('dataset')):
            if dataset.get('type', '').rpartition('.')[2] == 'ImageFolder':
                _source(dataset)
        if (loader.get('dataset') or {}).get('type') == 'milan_mm.ImageShards':
            sampler = loader.get('sampler') or {}
            if sampler.get('type', '').endswith('EpochSampler'):
                sampler['type'] = 'milan_mm.ShardSampler'


def count_images(roots: Roots, suffixes: Sequence[str] = SUFFIXES) -> int:
    """How many samples an epoch of these sources has.

    Raises:
        MilanError: if one of them is missing or holds none.
    """
    total = 0
    for root in [roots] if isinstance(roots, (str, Path)) else roots:
        path, weight = split_weight(root)
        total += max(1, round(weight * len(open_source(path, suffixes))))
    return total


def open_source(root: str | Path, suffixes: Sequence[str] = SUFFIXES) -> KeyedImages:
    """The images of a folder, a list or shards, without a pipeline; ``suffixes`` of a folder's."""
    return DATASETS.build(_source(
        dict(type='milan_mm.ImageFolder', data_root=str(root), suffixes=suffixes)))


def _source(dataset: Any) -> Any:
    """The config of a folder, changed in place to that of what is there."""
    prefix = (dataset.get('data_prefix') or {}).get('img_path', '')
    path = Path(dataset.get('data_root') or '').expanduser() / prefix
    if not path.exists():
        path = next((there for suffix in LISTS
                     if (there := path.with_name(path.name + suffix)).is_file()), path)
    if path.is_file() and path.suffix.lower() in LISTS:
        kind = 'ImageList'
        if dataset.get('classes_from'):
            dataset['classes_from'] += path.suffix
    elif path.suffix == '.tar' or path.is_dir() and _holds_shards(path):
        kind = 'ImageShards'
        if dataset.get('with_label'):
            raise MilanError(f'{path} holds shards, which have no labels: give a folder of classes '
                             'or a list with a column of labels')
    else:
        return dataset
    for name in ('data_prefix', 'suffixes'):
        dataset.pop(name, None)
    dataset.update(type=f'milan_mm.{kind}', data_root=str(path))
    print_log(f'{path} is read as {"a list of images" if kind == "ImageList" else "shards"}',
              logger='current')
    return dataset


def _holds_shards(folder: Path) -> bool:
    """Whether there are tar files in it, and neither images nor folders that may hold some."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith('.')]
    return any(entry.suffix == '.tar' for entry in entries) and not any(
        entry.is_dir() or entry.suffix.lower() in SUFFIXES for entry in entries)
