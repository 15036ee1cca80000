# SPDX-License-Identifier: Apache-2.0
"""A config that stands on another one, as the text of a file."""
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...resources import locate

_WIDTH = 96


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both as one table; where both set the same entry, the second's."""
    out = dict(first)
    for key, value in second.items():
        inside = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = value if not inside or value.get('_delete_') else merged(out[key], value)
    return out


def nested(options: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys, as of ``--cfg-options``, as nested tables."""
    out: dict[str, Any] = {}
    for key, value in options.items():
        for part in reversed(key.removeprefix('+').split('.')):
            value = {part: value}
        out = merged(out, value)
    return out


def config_text(base: str, changes: dict[str, Any], comments: Sequence[str] = (),
                resolve: bool = False) -> str:
    """The text of a config file.

    Args:
        base: config that it stands on, as the user named it.
        changes: of it, as nested tables.
        comments: lines before it.
        resolve: name the base by its whole path instead of ``milan_mm::PATH``.
    """
    if resolve or not base.startswith('milan_mm::'):
        base = str(Path(locate(base)).resolve())
    lines = [f'# {line}'.rstrip() for line in comments]
    lines.append(f'_base_ = {base!r}')
    lines += [f'{key} = {_text(value, 0, len(key) + 3)}' for key, value in changes.items()]
    return '\n'.join(lines) + '\n'


def _text(value: Any, indent: int, taken: int = 0) -> str:
    """``dict(a=1)`` in one line if it fits, else an entry a line."""
    if not isinstance(value, dict) or not all(str(key).isidentifier() for key in value):
        return repr(value)
    flat = 'dict(' + ', '.join(f'{key}={_text(one, 0)}' for key, one in value.items()) + ')'
    if indent + taken + len(flat) <= _WIDTH and '\n' not in flat:
        return flat
    inner = ' ' * (indent + 4)
    return 'dict(\n' + ',\n'.join(
        f'{inner}{key}={_text(one, indent + 4, len(key) + 2)}'
        for key, one in value.items()) + ')'
