# SPDX-License-Identifier: Apache-2.0
"""Changes of a config by dotted keys: what names nothing is refused."""
from typing import Any

from mmengine.config import Config

from ..errors import MilanError
from ..wording import some_of
from .arguments import arguments_at, did_you_mean


def merge_options(cfg: Config, options: dict | None, name: str = '--cfg-options') -> None:
    """Sets entries of a config by their dotted keys.

    A key must stand in the config or be an argument of what is there, and text does not replace
    a number. A key that begins with ``+`` is set as it is: for a new entry that is meant.

    Args:
        cfg: changed in place.
        options: of ``--cfg-options``, or of where ``name`` says.
        name: for the message.

    Raises:
        MilanError: for the first that does not fit, with the name that is nearest to it.
    """
    if not options:
        return
    asked: dict[str, Any] = {}
    try:
        for key, value in options.items():
            if not key.startswith('+'):
                *path, last = key.split('.')
                place = asked
                for part in path:
                    place = place.setdefault(part, {})
                place[last] = value
    except (AttributeError, TypeError) as error:
        raise MilanError(f'{name}: {key} changes a part of what another option sets') from error
    _Check(cfg, name).table(asked, cfg, '')
    try:
        cfg.merge_from_dict({key.removeprefix('+'): value for key, value in options.items()})
    except Exception as error:
        raise MilanError(f'{name} {" ".join(options)} does not fit the config: '
                         f'{type(error).__name__}: {error}') from error


class _Check:
    """Compares changes with a config; each step raises MilanError for what fits nothing."""

    def __init__(self, cfg: Config, option: str) -> None:
        self.cfg, self.option = cfg, option
        self.scope = str(cfg.get('default_scope') or 'mmengine')

    def table(self, asked: dict, there: Any, where: str) -> None:
        """A dict of changes against what the config has at a place."""
        if isinstance(there, (list, tuple)):
            self.listing(asked, there, where)
            return
        if asked.get('_delete_'):
            return  # it takes the place of what is there
        if not isinstance(there, (dict, Config)):
            raise MilanError(f'{self.option}: there is no such option: {where}.{next(iter(asked))}'
                             f'; {where} is {there!r} in the config and has no entries')
        for key, value in asked.items():
            path = f'{where}.{key}' if where else key
            if key not in there:
                self.new(key, path, {**dict(there.items()), **asked}, where)
            elif isinstance(value, dict):
                self.table(value, there[key], path)
            else:
                self.value(path, there[key], value)

    def listing(self, asked: dict, there: Any, where: str) -> None:
        for key, value in asked.items():
            if not str(key).isdigit() or int(key) >= len(there):
                self.refuse(f'{where}.{key}', f'; {where} has the entries 0 to {len(there) - 1}.'
                            if there else f'; {where} is empty.')
            if isinstance(value, dict):
                self.table(value, there[int(key)], f'{where}.{key}')

    def new(self, key: str, path: str, part: dict, where: str) -> None:
        """A key that the config does not have."""
        known = arguments_at(where, part, self.scope)
        if known is None or key in known:
            return
        near = did_you_mean(key, known.union(map(str, part)) - {key})
        if near:
            near = near.replace('mean ', f'mean {where}.' if where else 'mean ')
        elif below := [p for p in _paths(self.cfg.to_dict()) if p.endswith(f'.{key}')]:
            near = f'; did you mean {some_of(below, 3)}?'
        self.refuse(path, near)

    def value(self, path: str, old: Any, new: Any) -> None:
        """A value that takes the place of another."""
        expected = None
        if isinstance(old, bool) and path != 'resume':
            expected = isinstance(new, str) and 'True or False'
        elif isinstance(old, (int, float)) and path != 'resume':
            expected = isinstance(new, str) and new != 'auto' and 'a number'
        elif isinstance(old, dict):
            expected = isinstance(new, (bool, int, float)) and f'entries of it: {path}.KEY=VALUE'
        elif isinstance(old, (list, tuple)) and any(isinstance(item, dict) for item in old):
            expected = isinstance(new, (bool, int, float, str)) and (
                f'entries of it: {path}.0.KEY=VALUE')
        if expected:
            raise MilanError(f'{self.option} {path}={new}: expected {expected}, got {new!r}')

    def refuse(self, path: str, near: str) -> None:
        if not near and '.' not in path:
            near = f'; the config has {some_of(list(self.cfg), 40)}.'
        raise MilanError(f'{self.option}: there is no such option: {path}{near or "."} '
                         'For a new entry that is meant, write + before its key')


def _paths(value: Any, where: str = '') -> list[str]:
    """The dotted keys of every entry below."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))
    else:
        return []
    return [path for key, item in items
            for path in (f'{where}{key}', *_paths(item, f'{where}{key}.'))]
