# SPDX-License-Identifier: Apache-2.0
"""Where a run's data lies: moved as a whole, and looked for before anything is built."""
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from ..datasets.decoding import SUFFIXES
from ..datasets.image_folder import find_images
from ..datasets.labelled import splits_in
from ..errors import MilanError

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')


def move_data(cfg: Config, root: str) -> None:
    """Points a config at another data folder.

    A config with several sets names their common folder ``data_root`` at its top; whatever lies
    below it moves along, annotation files of the evaluators included. A pretraining config has one
    folder of images.

    Args:
        cfg: changed in place.
        root: the folder.
    """
    old = cfg.get('data_root')
    if old is None:
        for name in LOADERS:
            if cfg.get(name):
                cfg[name].dataset.data_root = root
        return
    for name in ('data_root', *LOADERS, *EVALUATORS):
        if cfg.get(name) is not None:
            cfg[name] = _moved(cfg[name], str(old).rstrip('/'), str(root).rstrip('/'))


def check_data(cfg: Config, loaders: tuple[str, ...] = ('train_dataloader', 'val_dataloader')
               ) -> None:
    """Looks for the folders and files of the sets: known at once, not after the model is built.

    Held-out images with labels may lie in ``val`` or ``test``, whichever the config names.

    Raises:
        MilanError: naming the first that is not there.
    """
    for name in loaders:
        for dataset in datasets_of((cfg.get(name) or {}).get('dataset')):
            root = Path(dataset.get('data_root') or '').expanduser()
            kind = dataset.get('type', '').rpartition('.')[2]
            if kind in ('ImageList', 'ImageShards'):
                if not root.exists():
                    raise MilanError(f'{name}: no such file or folder: {root}')
                continue
            if kind == 'ImageFolder':
                prefix = (dataset.get('data_prefix') or {}).get('img_path', '')
                held_out = next((s for s in ('val', 'test') if s in splits_in(root)), None)
                if dataset.get('with_label') and prefix in ('val', 'test') and held_out and not (
                        root / prefix).exists():
                    print_log(f'{root} has no {prefix}: {name} reads {held_out}', logger='current')
                    prefix = dataset['data_prefix']['img_path'] = held_out
                find_images(root / prefix, at_least_one=True,
                            suffixes=dataset.get('suffixes') or SUFFIXES)
                continue
            prefixes = dataset.get('data_prefix') or {}
            prefixes = prefixes if isinstance(prefixes, dict) else dict(img_path=prefixes)
            for part in (dataset.get('ann_file'), *prefixes.values()):
                if part and not (root / part).exists():
                    raise MilanError(
                        f'{name}: no such file or folder: {root / part}. Expected the data of '
                        f'this config below {root or "."}; give another place with '
                        '--data-root DIR, or other names with --cfg-options '
                        f'{name}.dataset.<key>=...')


def settle_workers(cfg: Config) -> None:
    """Takes from loaders without workers what only workers can have, which PyTorch would refuse."""
    for name in LOADERS:
        loader = cfg.get(name)
        if loader and not torch.cuda.is_available():
            loader.pop('pin_memory', None)  # for copies to a GPU; PyTorch warns of it without one
        if not loader or loader.get('num_workers', 0):
            continue
        without = [key for key in ('persistent_workers', 'prefetch_factor')
                   if loader.pop(key, None)]
        if without:
            print_log(f'{name} has no workers: {" and ".join(without)} set aside',
                      logger='current')


def _moved(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str) and (value.rstrip('/') == old or value.startswith(old + '/')):
        return new + value[len(old):]
    if isinstance(value, dict):
        for key in value:
            value[key] = _moved(value[key], old, new)
    elif isinstance(value, (list, tuple)):
        return type(value)(_moved(item, old, new) for item in value)
    return value


def datasets_of(dataset: Any) -> Iterator[dict]:
    """A data set's config, or those it wraps (repeated, concatenated)."""
    if not isinstance(dataset, dict):
        return
    inner = dataset.get('dataset') or dataset.get('datasets')
    if inner is None:
        yield dataset
    for part in inner if isinstance(inner, (list, tuple)) else [inner]:
        yield from datasets_of(part)
