# SPDX-License-Identifier: Apache-2.0
"""What became of something spoilt: a success, one error of ours, or a fault."""
import contextlib
import signal
import traceback
from collections.abc import Callable, Iterator

from milan_mm.errors import MilanError


@contextlib.contextmanager
def at_most_a_minute() -> Iterator[None]:
    """What hangs ends in TimeoutError, once ``signal.alarm`` has told when."""
    def end(*_: object) -> None:
        raise TimeoutError
    before = signal.signal(signal.SIGALRM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


def judged(call: Callable[[], tuple[str, str] | None], seconds: int) -> tuple[str, str]:
    """'success', 'error' or 'fault', and words; ``call`` may say by itself which it was."""
    signal.alarm(seconds)
    try:
        return call() or ('success', '')
    except TimeoutError:
        return 'fault', 'it hangs'
    except MilanError as error:
        return ('fault' if '\n' in str(error) else 'error'), str(error)
    except Exception:
        return 'fault', traceback.format_exc()
    finally:
        signal.alarm(0)
