# SPDX-License-Identifier: Apache-2.0
"""Going on from a checkpoint: which one, and whether it holds all that the run needs.

mmengine loads a checkpoint to resume as leniently as one to start from: what is missing or
misshapen stays as it was made, and what is nonsense is trained on. Here everything is compared
with the run first.
"""
import math
import numbers
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from ..checkpoints.io import is_whole, run_checkpoints, state_of
from ..checkpoints.strict import first_not_finite, is_finite, mismatch
from ..errors import MilanError
from ..structures import torch
from ..unwrapped import unwrapped
from .place import KEY, place_problem

_NOT_NEGATIVE = ('lr', 'initial_lr', 'weight_decay', 'eps', 'momentum', 'lr_scale')
_CHECKED_APART = ('state_dict', 'meta', 'message_hub', KEY)  # logs and sums may hold NaN
_INSTEAD = 'To start a new training from its weights: --init-from CHECKPOINT'


def find_resumed(cfg: Config) -> None:
    """Sets ``load_from`` of a run that resumes by itself to its newest whole checkpoint.

    Raises:
        MilanError: if there are checkpoints, and none is whole, or the run is sharded.
    """
    if isinstance(cfg.get('resume'), str):
        cfg.resume, cfg.load_from = True, cfg.resume
    if cfg.get('resume') and 'FSDP' in str((cfg.get('strategy') or {}).get('type')) and (
            cfg.get('load_from') or run_checkpoints(Path(cfg.work_dir))):
        # mmengine 0.10.x hands FSDP the optimizer's state in an order of arguments that torch gave
        # up in 2.1; put right, the moments still are not those that were saved.
        raise MilanError('a sharded run (FSDP) cannot go on from a checkpoint: the optimizer\'s '
                         f'state would not be restored. {_INSTEAD}')
    if not cfg.get('resume') or cfg.get('load_from'):
        return
    found, torn = run_checkpoints(Path(cfg.work_dir)), []
    while found and not is_whole(found[0]):
        torn.append(found.pop(0).name)
    if torn and not found:
        raise MilanError(f'no checkpoint in {cfg.work_dir} is whole: {", ".join(torn[:3])} '
                         'cannot be read. Remove them to start anew')
    if torn:
        print_log(f'{", ".join(torn)} in {cfg.work_dir} cannot be read (torn while it was '
                  f'written?): resuming from {found[0].name} instead', 'current', level=30)
    if found:
        cfg.load_from = str(found[0])
    else:
        cfg.resume = False
        print_log(f'there is no checkpoint in {cfg.work_dir} to resume from: the training starts '
                  'anew', 'current')


class CheckedLoadingHook(Hook):
    """Compares a checkpoint with the run before it is loaded into it.

    Args:
        source: the file.
        resume: whether the run goes on from it, so that everything must be there; a run that only
            takes its weights may find some missing or misshapen, as mmengine does.
    """
    priority = 'VERY_HIGH'

    def __init__(self, source: str, resume: bool) -> None:
        self.source, self.resume = source, resume

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        problem = self._problem(runner, checkpoint)
        if problem:
            what = 'resume from' if self.resume else 'start from'
            raise MilanError(f'{self.source} is nothing to {what}: {problem}. '
                             + (_INSTEAD if self.resume else 'Give another checkpoint'))
        if self.resume:
            _stay_within(checkpoint['message_hub']['runtime_info'], Path(runner.work_dir))

    def _problem(self, runner: Any, checkpoint: dict) -> str | None:
        if not self.resume and 'state_dict' not in checkpoint:
            checkpoint['state_dict'] = state_of(checkpoint)
        state = checkpoint.get('state_dict')
        if not isinstance(state, dict) or not any(isinstance(v, Tensor) for v in state.values()):
            return 'it holds no weights (state_dict)'
        state = {str(key).removeprefix('module.'): value for key, value in state.items()}
        if not self.resume:
            return _start_problem(_own_state(runner), state)
        return (_meta_problem(checkpoint.get('meta'))
                or _weights_problem(runner, state)
                or first_not_finite({key: part for key, part in checkpoint.items()
                                     if key not in _CHECKED_APART})
                or _hub_problem(checkpoint.get('message_hub'))
                or place_problem(checkpoint.get(KEY), state)
                or _optimizer_problem(runner, checkpoint)
                or _schedulers_problem(runner.param_schedulers, checkpoint.get('param_schedulers')))


def _own_state(runner: Any) -> dict[str, Any]:
    model = unwrapped(runner.model)
    if not isinstance(runner.model, FullyShardedDataParallel):
        return model.state_dict()
    # A shard knows no shapes; the strategy keeps the names.
    return dict.fromkeys(runner.strategy.id_to_name.values())


def _start_problem(own: dict[str, Any], state: dict[str, Any]) -> str | None:
    shared = [key for key in own if isinstance(state.get(key), Tensor)]
    if not shared:
        return (f'none of its tensors ({", ".join(list(state)[:3])}, …) is one of the model '
                f'({", ".join(list(own)[:3])}, …)')
    bad = [key for key in shared if state[key].is_complex()
           or state[key].is_floating_point() and not is_finite(state[key])]
    return f'{bad[0]} holds NaN, infinity or complex numbers' if bad else None


def _meta_problem(meta: Any) -> str | None:
    if not isinstance(meta, dict):
        return 'it does not say how far it came (meta)'
    for name in ('epoch', 'iter'):
        if type(meta.get(name)) is not int or meta[name] < 0:
            return f'its meta.{name} is {meta.get(name)!r}, expected a number from 0'
    if meta['epoch'] and not meta['iter']:
        return f'it counts {meta["epoch"]} epochs and no iteration'
    seed = meta.get('seed')
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**32):
        return f'its meta.seed is {seed!r}, expected a number from 0'
    return None


def _weights_problem(runner: Any, state: dict[str, Any]) -> str | None:
    own = _own_state(runner)
    if isinstance(runner.model, FullyShardedDataParallel):
        missing = [key for key in own if key not in state]
        return f'missing {len(missing)} ({missing[0]})' if missing else None
    counters = {key for key in own if key.endswith('num_batches_tracked')}
    return mismatch({key: value for key, value in own.items()
                     if key in state or key not in counters}, state)


def _hub_problem(hub: Any) -> str | None:
    parts = ('log_scalars', 'runtime_info', 'resumed_keys')
    if not isinstance(hub, dict) or not all(isinstance(hub.get(part), dict) for part in parts):
        return 'it keeps no log of its run (message_hub)'
    for name, log in hub['log_scalars'].items():
        if isinstance(log, HistoryBuffer):
            values = [vars(log).get(part) for part in ('_log_history', '_count_history')]
        else:  # as PlainCheckpointHook saves it
            values = (log.get('history_buffer') if isinstance(log, dict) else None) or []
        if len(values) < 2 or not all(isinstance(v, (np.ndarray, Tensor)) and v.ndim == 1
                                      and len(v) == len(values[0]) for v in values[:2]):
            return f'its log of {name} is none'
    return None


def _optimizer_problem(runner: Any, checkpoint: dict) -> str | None:
    saved, wrapper = checkpoint.get('optimizer'), runner.optim_wrapper
    if not isinstance(saved, dict):
        return 'it keeps no state of the optimizer (optimizer)'
    if not isinstance(wrapper, OptimWrapper):
        return None  # a dict of several, which only other packages' models have
    groups, state = saved.get('param_groups'), saved.get('state')
    if not isinstance(groups, list) or not isinstance(state, dict) or not all(
            isinstance(g, dict) and isinstance(g.get('params'), (list, tuple)) for g in groups):
        return 'its optimizer has no param_groups or no state'
    own = wrapper.optimizer.param_groups
    base = (saved.get('base_param_settings') or {}, wrapper.base_param_settings or {})
    for i, (group, now) in enumerate([*zip(groups, own), base]):
        for key in group.keys() & now.keys() - {'params'}:
            problem = _setting_problem(key, group[key], now[key])
            if problem:
                return f'its optimizer\'s param_groups.{i}.{key} {problem}'
    left_out = checkpoint['message_hub']['runtime_info'].get('updates_left_out', 0)
    settings = runner.cfg.get('optim_wrapper') or {}
    first = (1 + left_out) * settings.get('accumulative_counts', 1)  # batches up to an update
    if any('betas' in group for group in own) and not state and (
            checkpoint['meta']['iter'] >= first):
        return 'its optimizer keeps no moments'
    if isinstance(runner.model, FullyShardedDataParallel):
        return None  # by name, and put together by torch
    sizes = [[len(group['params']) for group in kind] for kind in (groups, own)]
    if sizes[0] != sizes[1]:
        return (f'its optimizer has parameters in groups of {_short(sizes[0])}, the run\'s in '
                f'groups of {_short(sizes[1])}')
    return _state_problem(groups, state, [p for group in own for p in group['params']])


def _state_problem(groups: list[dict], state: dict, own: list[nn.Parameter]) -> str | None:
    ids = [number for group in groups for number in group['params']]
    if len(set(map(repr, ids))) < len(ids) or any(type(number) is not int for number in ids):
        return 'its optimizer counts a parameter twice'
    of = dict(zip(ids, own))
    for number, kept in state.items():
        if number not in of or not isinstance(kept, dict):
            return f'its optimizer keeps a state of no parameter ({number!r})'
        for name, value in kept.items():
            shape = tuple(of[number].shape)
            if isinstance(value, Tensor) and value.ndim and tuple(value.shape) != shape:
                return (f'its optimizer\'s {name} of parameter {number} is {tuple(value.shape)}, '
                        f'expected {shape}')
            if not isinstance(value, (Tensor, numbers.Number, type(None))):
                return f'its optimizer\'s {name} of parameter {number} is a {type(value).__name__}'
            if name == 'step' and not (isinstance(value, (Tensor, int, float)) and
                                       torch.as_tensor(value).numel() == 1 and value >= 0):
                return f'its optimizer\'s step of parameter {number} is {value}'
    return None


def _schedulers_problem(own: Any, saved: Any) -> str | None:
    if not isinstance(own, list) or not own:
        return None
    if not isinstance(saved, list) or len(saved) != len(own):
        return (f'it keeps {len(saved) if isinstance(saved, list) else "no"} schedules of the '
                f'learning rate (param_schedulers), the run has {len(own)}')
    for i, (scheduler, kept) in enumerate(zip(own, saved)):
        now = scheduler.state_dict()
        if not isinstance(kept, dict) or set(kept) != set(now):
            return f'its param_schedulers.{i} is of another kind than the run\'s'
        for key in now:
            problem = _setting_problem(key, kept[key], now[key])
            if problem:
                return f'its param_schedulers.{i}.{key} {problem}'
    return None


def _setting_problem(name: str, saved: Any, now: Any) -> str | None:
    """What is wrong with a number, or with a list of them, in the place of another."""
    if isinstance(now, Sequence) and not isinstance(now, str):
        if not isinstance(saved, Sequence) or isinstance(saved, str) or len(saved) != len(now):
            return f'is {_short(saved)}, expected {len(now)} numbers'
        if name == 'betas' and not all(_is_number(v) and 0 <= float(v) < 1 for v in saved):
            return f'is {_short(saved)}, expected numbers from 0 to below 1'
        return next(filter(None, (_setting_problem(name, *pair) for pair in zip(saved, now))), None)
    if isinstance(now, dict):  # a schedule's milestones
        sound = isinstance(saved, dict) and all(map(_is_number, (*saved, *saved.values())))
        return None if sound else f'is {_short(saved)}, expected {_short(now)}'
    if _is_number(now):
        if not _is_number(saved) or not math.isfinite(float(saved)):
            return f'is {_short(saved)}, expected a number'
        if name in _NOT_NEGATIVE and float(saved) < 0:
            return f'is {float(saved)}, which is negative'
    elif not isinstance(saved, (type(now), type(None), bool, str, numbers.Number)):
        return f'is a {type(saved).__name__}, expected {_short(now)}'
    return None


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _short(value: Any) -> str:
    return text if len(text := repr(value)) <= 60 else f'{text[:60]}…'


def _stay_within(info: dict[str, Any], work_dir: Path) -> None:
    """Forgets checkpoints outside the work folder: mmengine removes the best for a better one.

    They belong to the run that wrote this one, or to somebody who wants them gone.
    """
    for key in [key for key in info if str(key).startswith(('best_ckpt', 'last_ckpt'))]:
        path = Path(str(info[key]))
        if path.parent.resolve() != work_dir.resolve() or path.suffix != '.pth':
            del info[key]
    ids = info.get('keep_ckpt_ids', [])
    if not isinstance(ids, list) or any(type(number) is not int for number in ids):
        del info['keep_ckpt_ids']
