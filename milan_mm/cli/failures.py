# SPDX-License-Identifier: Apache-2.0
"""What becomes of an error: one line where it is the user's to mend, else Python's own report."""
import errno
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from ..errors import MilanError

_FULL = 'free some space, or write to another disk with --work-dir or --out'
_CLOSED = 'give another path, or have its owner allow it'
_MENDS = {
    errno.ENOSPC: _FULL, errno.EDQUOT: _FULL, errno.EFBIG: _FULL,
    errno.EACCES: _CLOSED, errno.EPERM: _CLOSED, errno.EROFS: _CLOSED,
    errno.ENOENT: 'is the path right?', errno.ENOTDIR: 'a folder was expected',
    errno.EISDIR: 'a file was expected', errno.EEXIST: 'give another path',
    errno.EMFILE: 'raise the limit with ulimit -n, or take fewer --workers',
}
# As torch.save and safetensors, which are no Python, say it.
_NOT_WRITTEN = re.compile(
    r'No space left on device|PytorchStreamWriter failed writing'
    r'|inline_container\.cc:\d+\] \. unexpected pos|\(os error (27|28|30|122)\)')
_PEER = re.compile(r'/gloo/transport/|Connection (closed|reset) by peer')
_MM = ('mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg')  # extras: two lineages share the names
_OF_A_WORKER = re.compile(r'Caught (\w+) in DataLoader worker process \d+\.\n')


def guarded(run: Callable[[Any], int | None], args: Any) -> int:
    """Runs ``run(args)`` and gives the exit code.

    2 is the user's own mistake, or something that the machine lacks, after one line that says so;
    130 the keyboard's interruption; 141 a reader that has seen enough, such as ``| head``. Any
    other error is this program's, and is raised. With ``MILAN_DEBUG=1`` in the environment the
    line comes after Python's report.
    """
    try:
        return run(args) or 0
    except KeyboardInterrupt:
        print('stopped by the keyboard', file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except Exception as error:
        words = in_words(error)
        if words is None:
            raise
        if os.environ.get('MILAN_DEBUG', '0') != '0':
            traceback.print_exc()
        if os.environ.get('RANK', '0') != '0':
            time.sleep(5)  # the first process mostly says the same, and its end is this one's
        _say(f'error: {words}')
        return 2


def _say(line: str) -> None:
    """Below the bar, where one is shown; without tqdm there is none."""
    if 'tqdm' in sys.modules:
        from ..progress import Progress
        Progress.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr)


def in_words(error: Exception) -> str | None:
    """What to tell the user; None for an error that is not the user's to mend."""
    text = str(error)
    if worker := _OF_A_WORKER.match(text):  # PyTorch puts the worker's whole report into the text
        text = _last_message(text, worker[1])
    if isinstance(error, MilanError):
        return text
    if isinstance(error, OSError):
        number = error.errno or _number_in(text)
        return f'{text}; {_MENDS[number]}' if number in _MENDS else None
    if isinstance(error, ModuleNotFoundError) and error.name in _MM:
        return (f"{error.name} is not installed. pip install 'milan_mm[onedl]' brings the "
                'OpenMMLab packages along (in a clone: bash tools/setup_env.sh); plain milan_mm '
                'leaves them to you')
    if _NOT_WRITTEN.search(text):
        return (f'a file could not be written, the disk seems full or closed '
                f'({_first_line(text)}); {_FULL}')
    if text.startswith('DataLoader worker (pid'):
        return (f'a process that loads data was ended ({_first_line(text)}); was memory, or shared '
                'memory (/dev/shm), too small? Use fewer workers or none: --workers 0, or '
                '--cfg-options train_dataloader.num_workers=0; a training goes on with --resume')
    if _PEER.search(text) or type(error).__name__ in ('DistBackendError', 'DistNetworkError'):
        return ('another process of this training ended or cannot be reached '
                f'({_first_line(text)[:160]}); its own output says why. Go on with --resume')
    if type(error).__name__ == 'OutOfMemoryError':
        return f'{_first_line(text)} A smaller batch or smaller images take less'
    return None


def _last_message(report: str, kind: str) -> str:
    """The text of an error from the report that Python prints of it."""
    found = re.split(rf'^(?:[\w.]+\.)?{kind}: ', report, flags=re.MULTILINE)
    return found[-1].strip()


def _number_in(text: str) -> int | None:
    found = re.match(r'\[Errno (\d+)\]', text)
    return int(found[1]) if found else None


def _first_line(text: str) -> str:
    return text.strip().partition('\n')[0]
