# SPDX-License-Identifier: Apache-2.0
"""Numbers of a config that no training can come of are refused before it starts."""
import math
import numbers
from collections.abc import Callable, Iterator
from typing import Any

from mmengine.config import Config

from ..errors import MilanError

_MOST_LR = 1000.  # far above what any recipe takes
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    'optim_wrapper.optimizer.lr': (lambda v: 0 < v <= _MOST_LR, f'above 0, up to {_MOST_LR:g}'),
    'optim_wrapper.optimizer.weight_decay': (lambda v: 0 <= v < math.inf, 'from 0'),
    'optim_wrapper.optimizer.eps': (lambda v: 0 <= v < math.inf, 'from 0'),
    'optim_wrapper.optimizer.momentum': (lambda v: 0 <= v < math.inf, 'from 0'),
    'optim_wrapper.optimizer.betas': (lambda v: 0 <= v < 1, 'from 0 to below 1'),
    'optim_wrapper.clip_grad.max_norm': (lambda v: v > 0, 'above 0'),
    'optim_wrapper.accumulative_counts': (lambda v: v >= 1 and v == int(v), 'whole, from 1'),
}
_PIXELS: dict[str, tuple[Callable[[Any], bool], str]] = {
    'mean': (math.isfinite, 'finite'), 'std': (lambda v: 0 < v < math.inf, 'above 0 and finite')}
_SHARES = ('drop_path_rate', 'drop_rate', 'dropout_ratio')


def check_numbers(cfg: Config) -> None:
    """Looks at optimizer, schedule, dropped shares, and means and deviations of pixels.

    Raises:
        MilanError: naming the first option whose number is not finite or out of its range.
    """
    for name, value in _numbers(cfg.get('optim_wrapper') or {}, 'optim_wrapper'):
        sound, words = _RULES.get(name.removesuffix('.0').removesuffix('.1'), (
            lambda v: not math.isnan(v), 'a number'))
        _require(sound, name, value, words)
    for name, value in _numbers(cfg.get('param_scheduler') or [], 'param_scheduler'):
        _require(math.isfinite, name, value, 'finite')
    for name, part in _parts(cfg.get('model') or {}, 'model.'):
        for key in _SHARES:
            if part.get(key) is not None:
                _require(lambda v: 0 <= v < 1, f'{name}{key}', part[key], 'from 0 to below 1')
    for name, part in _parts(cfg._cfg_dict, ''):
        for key, (sound, words) in _PIXELS.items():
            if isinstance(part.get(key), (list, tuple)):  # a number is an initialisation's
                for i, value in enumerate(part[key]):
                    _require(sound, f'{name}{key}.{i}', value, words)


def _require(sound: Callable[[Any], bool], name: str, value: Any, words: str) -> None:
    try:
        fine = not isinstance(value, bool) and sound(float(value))
    except (TypeError, ValueError, OverflowError):
        fine = False
    if not fine:
        raise MilanError(f'{name} is {value!r}, expected {words}: nothing can be trained with it')


def _numbers(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Numbers at any depth, and whatever stands where a rule asks for one, by dotted names."""
    if isinstance(value, (dict, list, tuple)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(part, f'{name}.{key}')
    elif name in _RULES and value is not None or (isinstance(value, numbers.Real)
                                                  and not isinstance(value, bool)):
        yield name, value


def _parts(value: Any, name: str) -> Iterator[tuple[str, dict]]:
    """All dicts at any depth by the dotted names that their entries begin with."""
    if isinstance(value, dict):
        yield name, value
    for key, part in (value.items() if isinstance(value, dict) else
                      enumerate(value) if isinstance(value, (list, tuple)) else ()):
        yield from _parts(part, f'{name}{key}.')
