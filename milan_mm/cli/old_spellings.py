# SPDX-License-Identifier: Apache-2.0
"""Options as they were spelt in 0.1.0, accepted with a warning. To be deleted after 0.2."""
import sys
from collections.abc import Sequence

# Command -> old option -> new option.
_OLD: dict[str, dict[str, str]] = {}


def renewed(command: str, arguments: Sequence[str]) -> list[str]:
    """The arguments in today's spelling; each one that is not warns on stderr."""
    return [_renewed(_OLD.get(command, {}), word) for word in arguments]


def _renewed(names: dict[str, str], word: str) -> str:
    option, equals, value = word.partition('=')
    if option not in names:
        return word
    print(f'warning: {option} is now called {names[option]}', file=sys.stderr)
    return f'{names[option]}{equals}{value}'
