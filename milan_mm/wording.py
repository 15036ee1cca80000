# SPDX-License-Identifier: Apache-2.0
"""Turns of phrase that messages and pages share."""
from collections.abc import Sequence


def some_of(names: Sequence[object], most: int = 5) -> str:
    """Such as 'a, b and 3 more'."""
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(map(printable, names[:most])) + more


def printable(name: object) -> str:
    """A name in one line of valid text: line feeds and bytes that are no UTF-8 are escaped."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode()
                   for c in str(name))
