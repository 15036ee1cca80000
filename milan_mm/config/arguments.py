# SPDX-License-Identifier: Apache-2.0
"""What a part of a config takes: the arguments of the class that it names, or of the runner."""
import difflib
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.registry import Registry, root
from mmengine.runner import FlexibleRunner, Runner
from mmengine.runner.utils import set_random_seed
from mmengine.utils.dl_utils import set_multi_processing
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader

from ..compat.quiet_import import quiet_import

_FIRST = [root.MODELS, root.DATASETS, root.HOOKS, root.OPTIMIZERS]  # where most types are
_REGISTRIES = _FIRST + [value for value in vars(root).values()
                        if isinstance(value, Registry) and value not in _FIRST]
# Where a class hands on arguments by itself, and not to a parent.
_HAND_ON: dict[Any, Callable] = {CheckpointHook: Runner.save_checkpoint}
_NAMES = {'type', '_scope_', '_delete_'}  # any part may have them
_BESIDE_RUNNER = {'custom_imports', 'runner_type', 'model_wrapper_cfg', 'data_root', 'compile',
                  'activation_checkpointing', 'efficient_conv_bn_eval'}
_FIXED = {
    'custom_imports': {'imports', 'allow_failed_imports'},
    'auto_scale_lr': {'enable', 'base_batch_size'},
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'default_hooks': {'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler',
                      'checkpoint', 'ema'},
}
_CALLED: dict[str, Callable] = {
    'randomness': set_random_seed, 'env_cfg.mp_cfg': set_multi_processing,
    'optim_wrapper.clip_grad': clip_grad_norm_}
# Types that mmengine, mmpretrain and mmdet take where a config names none.
_USUAL = (
    (r'.*data_preprocessor', 'mmpretrain.ClsDataPreprocessor',
     'mmpretrain.SelfSupDataPreprocessor'),
    (r'optim_wrapper', 'OptimWrapper'), (r'val_cfg', 'ValLoop'), (r'test_cfg', 'TestLoop'),
    (r'train_cfg', 'EpochBasedTrainLoop', 'IterBasedTrainLoop'),
    (r'log_processor', 'LogProcessor'), (r'visualizer', 'Visualizer'),
    (r'default_hooks\.runtime_info', 'RuntimeInfoHook'),
    (r'default_hooks\.timer', 'IterTimerHook'),
    (r'default_hooks\.sampler_seed', 'DistSamplerSeedHook'),
    (r'default_hooks\.logger', 'LoggerHook'),
    (r'default_hooks\.param_scheduler', 'ParamSchedulerHook'),
    (r'default_hooks\.checkpoint', 'CheckpointHook'))
# What is taken beside the arguments of the class.
_MORE = (
    (r'optim_wrapper', {'optimizer', 'constructor', 'paramwise_cfg', 'dtype', 'loss_scale'}),
    (r'optim_wrapper\.clip_grad', {'clip_value'}),
    (r'(default|custom)_hooks\..+', {'priority'}), (r'train_cfg', {'by_epoch'}),
    (r'randomness', {'seed', 'diff_rank_seed', 'deterministic'}),
    (r'(train|val|test)_dataloader', {'dataset', 'num_batch_per_epoch'}))
_OPEN = ('custom_keys', 'metainfo', 'dist_cfg', 'kwargs')  # tables of the user's own names
_PARAMWISE = {'layer_decay_rate', 'custom_keys', 'bias_lr_mult', 'bias_decay_mult',
              'norm_decay_mult', 'flat_decay_mult', 'dwconv_decay_mult', 'dcn_offset_lr_mult',
              'bypass_duplicate'}


def arguments_at(where: str, part: dict, scope: str) -> set[str] | None:
    """The names that a part of a config takes, besides those that it has.

    Args:
        where: its dotted path; '' for the whole config.
        part: what stands there.
        scope: the config's ``default_scope``.

    Returns:
        The names; None where any will do, as in a table of the user's own or a class that hands
        on whatever it gets.
    """
    if not where:
        return _BESIDE_RUNNER.union(*map(_of_callable, (Runner, FlexibleRunner)))
    if where in _FIXED:
        return set(_FIXED[where])
    if where == 'optim_wrapper.paramwise_cfg':
        return set(_PARAMWISE)
    if where in _CALLED:
        called: list[Callable] = [_CALLED[where]]
    elif re.fullmatch(r'(train|val|test)_dataloader', where):
        return _NAMES.union(*(names for pattern, names in _MORE if re.fullmatch(pattern, where)),
                            _of_callable(DataLoader) or ()) - {'shuffle'}  # the sampler's
    else:
        named = part.get('type') or [
            name for pattern, *names in _USUAL if re.fullmatch(pattern, where) for name in names]
        called = [found for name in (named if isinstance(named, list) else [named])
                  for found in classes_named(name, scope)]
    taken = [_of_callable(one) for one in called]
    if not taken and 'type' not in part and part and where.rpartition('.')[2] not in _OPEN:
        return set()  # a plain table: what it has is what it takes
    if not taken or any(names is None for names in taken):
        return None
    more = [names for pattern, names in _MORE if re.fullmatch(pattern, where)]
    return _NAMES.union(*taken, *more)


def classes_named(name: Any, scope: str) -> list[Callable]:
    """The classes or functions of that name in any registry."""
    if not isinstance(name, str):
        return [name] if callable(name) else []
    found = [_look_up(registry, name, scope) for registry in _REGISTRIES]
    return [one for one in found if one is not None]


def is_known(name: str, scope: str) -> bool:
    """Whether any registry has that name."""
    return any(_look_up(registry, name, scope) is not None for registry in _REGISTRIES)


def takes(name: Any, scope: str) -> set[str]:
    """The arguments of what has that name; empty if there is none, or it takes any."""
    return set().union(*(_of_callable(one) or () for one in classes_named(name, scope)))


def nearest_type(name: str) -> str:
    """``; did you mean X?`` with the registered name that is most like it, or nothing."""
    scope, _, bare = name.rpartition('.')
    names = {f'{child.scope}.{known}' if scope else known for registry in _REGISTRIES
             for child in (registry, *registry.children.values()) for known in child.module_dict}
    near = did_you_mean(name, names, 0.75)
    if near or not scope:
        return near
    return did_you_mean(bare, {known.rpartition('.')[2] for known in names}, 0.75)


def did_you_mean(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """``; did you mean X?`` with the most similar of the known names, or nothing."""
    near = difflib.get_close_matches(name, sorted(known), 1, likeness)
    return f'; did you mean {near[0]}?' if near else ''


def _look_up(registry: Registry, name: str, scope: str) -> Any:
    for full in (name, f'{scope}.{name}') if '.' not in name else (name, ):
        try:
            with quiet_import():
                found = registry.get(full)
        except Exception:  # a library that is not there, or a scope that nobody has
            continue
        if found is not None:
            return found
    return None


def _of_callable(called: Callable) -> Any:
    """Names of its arguments, through the parents that ``**kwargs`` go to; None for any."""
    names: set[str] = set()
    hands_on = False
    owners = called.__mro__[:-1] if inspect.isclass(called) else ()
    inits = [init for owner in owners for init in (vars(owner).get('__init__'), _HAND_ON.get(owner))
             if init is not None]
    for init in inits if owners else [called]:
        parameters = inspect.signature(init).parameters
        hands_on = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        names.update(name for name, p in parameters.items() if name != 'self'
                     and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        if not hands_on:
            break
    return None if hands_on else names
