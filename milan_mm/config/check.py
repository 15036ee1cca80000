# SPDX-License-Identifier: Apache-2.0
"""Whether a config says what a run needs, each part in a form that it can have."""
import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import root

from ..errors import MilanError
from .arguments import arguments_at, did_you_mean, is_known, nearest_type

_Rule = tuple[Callable[[Any], bool], str]


def _whole(least: int) -> _Rule:
    return (lambda v: type(v) is int and v >= least, f'a whole number from {least}')


def _is_part(value: Any) -> bool:
    kind = value.get('type') if isinstance(value, dict) else None
    return isinstance(kind, str) or str(getattr(kind, '__name__', '')).isidentifier()


def _is_scope(value: Any) -> bool:
    return value is None or isinstance(value, str) and (
        value in root.MODELS.children or value == 'mmengine'
        or value.isidentifier() and importlib.util.find_spec(value) is not None)


def _is_resumed(value: Any) -> bool:
    return isinstance(value, bool) or isinstance(value, str) and (
        ':/' in value or Path(value).expanduser().exists())


_TABLE: _Rule = (lambda v: isinstance(v, dict), 'a table: dict(KEY=VALUE)')
_TABLE_OR_NONE: _Rule = (lambda v: v is None or isinstance(v, dict), _TABLE[1])
_PART: _Rule = (_is_part, "a part: dict(type='NAME', KEY=VALUE)")
_PARTS: _Rule = (lambda v: v is None or isinstance(v, (list, tuple)) and all(map(_is_part, v)),
                 "a list of parts: [dict(type='NAME', KEY=VALUE)]")
_STEPS: _Rule = (lambda v: isinstance(v, (list, tuple)) and bool(v) and all(
    callable(part) or _is_part(part) for part in v), _PARTS[1])
_BOOL: _Rule = (lambda v: isinstance(v, bool), 'True or False')
_RULES: dict[str, _Rule] = {
    'default_scope': (_is_scope, 'a package with registries, such as mmpretrain'),
    'model': _PART, 'model_wrapper_cfg': _TABLE_OR_NONE,
    'train_cfg': _TABLE_OR_NONE, 'val_cfg': _TABLE_OR_NONE, 'test_cfg': _TABLE_OR_NONE,
    'train_cfg.max_epochs': _whole(1), 'train_cfg.max_iters': _whole(1),
    'train_cfg.val_interval': _whole(1),
    'optim_wrapper': _TABLE_OR_NONE, 'optim_wrapper.optimizer': _PART,
    'param_scheduler': (lambda v: v is None or isinstance(v, (dict, list, tuple)), _PARTS[1]),
    'auto_scale_lr': _TABLE_OR_NONE, 'auto_scale_lr.base_batch_size': _whole(1),
    'auto_scale_lr.enable': _BOOL,
    'default_hooks': _TABLE, 'custom_hooks': _PARTS,
    'env_cfg': _TABLE, 'env_cfg.mp_cfg': _TABLE_OR_NONE, 'env_cfg.dist_cfg': _TABLE_OR_NONE,
    'randomness': _TABLE,
    'randomness.seed': (lambda v: v is None or type(v) is int and 0 <= v < 2**32,
                        'a whole number from 0, below 2 ** 32'),
    'custom_imports.imports': (lambda v: isinstance(v, (str, list, tuple)), 'a list of modules'),
    'log_processor': _TABLE_OR_NONE, 'visualizer': _TABLE_OR_NONE,
    'log_level': (lambda v: v in logging.getLevelNamesMapping() if hasattr(
        logging, 'getLevelNamesMapping') else isinstance(logging.getLevelName(v), int),
        'a level such as INFO or WARNING'),
    'resume': (_is_resumed, 'True, False or a checkpoint that is there'),
    'load_from': (lambda v: v is None or isinstance(v, str), 'the path of a checkpoint, or None'),
    'work_dir': (lambda v: isinstance(v, (str, Path)), 'the path of a folder'),
}
_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
for _loader in _LOADERS:
    _RULES.update({
        _loader: _TABLE_OR_NONE, f'{_loader}.batch_size': _whole(1),
        f'{_loader}.num_workers': _whole(0), f'{_loader}.persistent_workers': _BOOL,
        f'{_loader}.dataset': _PART, f'{_loader}.dataset.pipeline': _STEPS,
        f'{_loader}.sampler': _TABLE_OR_NONE})
# Parts whose type is looked up at once: other tables have a "type" that no registry knows.
_TYPED = ('model', 'optim_wrapper', 'optim_wrapper.optimizer', 'train_dataloader.dataset',
          'val_dataloader.dataset', 'test_dataloader.dataset', 'train_cfg', 'val_cfg', 'test_cfg')
_MODEL_PARTS = ('backbone', 'neck', 'head', 'target_generator', 'mask_generator')


def check_config(cfg: Config, source: str | Path, training: bool = True) -> None:
    """Looks at the form of what every run reads, before any of it is used.

    Args:
        cfg: the whole config.
        source: what messages call it.
        training: whether it is to train; a test needs no optimizer.

    Raises:
        MilanError: naming the first entry that is missing, of another form than it can have, or of
            a type that no registry has.
    """
    needed = ['model', *(('train_dataloader', 'optim_wrapper', 'train_cfg') if training else ())]
    for name in needed:
        if cfg.get(name) is None:
            raise MilanError(f'{source} has no {name}, which a {"training" if training else "test"}'
                             ' needs. A config most often stands on another one: _base_ = '
                             "'milan_mm::milan/own_images.py'")
    for name, (fits, expected) in _RULES.items():
        for found in _at(cfg, name):
            if not fits(found):
                words = did_you_mean(found, root.MODELS.children) if (
                    name == 'default_scope' and isinstance(found, str)) else ''
                raise MilanError(f'{name} is {_short(found)}, expected {expected}{words}')
    if training:
        _check_training(cfg)
    _check_types(cfg)


def _check_training(cfg: Config) -> None:
    if not any(cfg.train_cfg.get(unit) for unit in ('max_epochs', 'max_iters')):
        raise MilanError('train_cfg does not say how long to train: set train_cfg.max_epochs=N or '
                         'train_cfg.max_iters=N')
    for name in ('train_dataloader.dataset', 'train_dataloader.batch_size',
                 'optim_wrapper.optimizer', 'optim_wrapper.optimizer.lr'):
        if not _at(cfg, name) and 'batch_sampler' not in (cfg.train_dataloader or {}):
            raise MilanError(f'the config has no {name}, which a training needs')


def _check_types(cfg: Config) -> None:
    scope = cfg.get('default_scope') or 'mmengine'
    hooks = [*(f'default_hooks.{name}' for name in cfg.get('default_hooks') or {}),
             *(f'custom_hooks.{i}' for i in range(len(cfg.get('custom_hooks') or ())))]
    for place in (*_TYPED, *(f'model.{part}' for part in _MODEL_PARTS), *hooks):
        for kind in _at(cfg, f'{place}.type'):
            if isinstance(kind, str) and not is_known(kind, scope):
                raise MilanError(f'{place}.type is {kind!r}, and there is no such part'
                                 f'{nearest_type(kind)}')
    for place in (*_LOADERS, *hooks):  # what others take, their constructors say
        for part in _at(cfg, place):
            known = arguments_at(place, part, scope) if part else None
            if known is not None and (unknown := sorted(map(str, set(part) - known))):
                raise MilanError(f'{place} takes no {unknown[0]}{did_you_mean(unknown[0], known)}')


def _at(cfg: Config, name: str) -> list[Any]:
    """What stands at a dotted name, or nothing."""
    value: Any = cfg
    for key in name.split('.'):
        if isinstance(value, (list, tuple)) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, (dict, Config)) and key in value:
            value = value[key]
        else:
            return []
    return [value]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f'{text[:77]}…'
