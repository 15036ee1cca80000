# SPDX-License-Identifier: Apache-2.0
"""In what one config differs from another."""
from typing import Any, NamedTuple

from mmengine.config import Config


class Change(NamedTuple):
    """An entry that is not the same: dotted name, and what base and cell say ('' if none)."""
    entry: str
    base: str
    cell: str


def config_changes(base: Config, cell: Config) -> list[Change]:
    """Entries that differ, in the order of the base's, then the cell's own."""
    ours, theirs = flatten(base.to_dict()), flatten(cell.to_dict())
    return [Change(entry, ours.get(entry, ''), theirs.get(entry, ''))
            for entry in dict.fromkeys([*ours, *theirs])
            if ours.get(entry) != theirs.get(entry)]


def flatten(value: Any, prefix: str = '') -> dict[str, str]:
    """Dotted name -> value as text, of every entry of a config."""
    if isinstance(value, dict) and value:
        flat: dict[str, str] = {}
        for key, part in value.items():
            flat.update(flatten(part, f'{prefix}.{key}' if prefix else str(key)))
        return flat
    if isinstance(value, (list, tuple)) and any(isinstance(part, dict) for part in value):
        return flatten({f'{i}': part for i, part in enumerate(value)}, prefix)
    return {prefix: repr(value)}
