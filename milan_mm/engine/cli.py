# SPDX-License-Identifier: Apache-2.0
"""What every command line tool does the same way."""
import sys
from typing import Callable, Optional

from ..errors import MilanError


def run_tool(main: Callable[[], Optional[int]]) -> int:
    """Runs a tool's ``main``; the user's own mistakes end in one line and exit code 2."""
    try:
        return main() or 0
    except MilanError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('stopped by the keyboard', file=sys.stderr)
        return 130
    except BrokenPipeError:  # `tool | head` has seen enough
        sys.stderr.close()
        return 141
