# SPDX-License-Identifier: Apache-2.0
"""Options as version 0.1 spelt them, accepted with a warning. To be deleted with version 0.3."""
import sys
from collections.abc import Sequence
from pathlib import Path

_IMAGES = {'--pictures': '--data-root', '--images': '--data-root'}
_OLD = {
    'ablate': _IMAGES,
    'quickstart': _IMAGES,
    'diagnose': {'--pictures': '--num-images', '--images': '--num-images'},
    'visualize': {'--folder': '--gallery', '--masks': '--num-masks', '--most': '--num-images'},
    'eval': {'--train': '--gallery', '--test': '--queries', '--lars-batch': '--lars-batch-size'},
    'train-clip': {'--data': '--data-root', '--image-size': '--img-size'},
    'benchmark': {'--batch': '--batch-size', '--size': '--img-size',
                  'memory': 'downstream'},
}


def renewed(command: str, arguments: Sequence[str]) -> list[str]:
    """The arguments in today's spelling; each one that is not warns on stderr."""
    arguments = list(arguments)
    if command in ('eval', 'extract'):
        arguments = _teacher_with_its_name(arguments)
    if command == 'visualize':
        arguments = _count_of_gallery(arguments)
    names = _OLD.get(command, {})
    for i, word in enumerate(arguments):
        option, equals, value = word.partition('=')
        if option in names:
            _warn(option, names[option])
            arguments[i] = f'{names[option]}{equals}{value}'
    return arguments


def _teacher_with_its_name(arguments: list[str]) -> list[str]:
    """``CHECKPOINT --teacher``, a flag, is now ``--teacher SPEC``."""
    bare = next((i for i, word in enumerate(arguments) if word == '--teacher'
                 and (arguments[i + 1:] or ['-'])[0].startswith('-')), None)
    if bare is None:
        return arguments
    rest = arguments[:bare] + arguments[bare + 1:]
    # The checkpoint stood first, else before the flag.
    at = 0 if bare == 0 or not rest[0].startswith('-') else bare - 1
    if at >= len(rest) or rest[at].startswith('-'):
        return arguments
    _warn(f'{rest[at]} --teacher', f'--teacher {rest[at]}')
    return ['--teacher', rest.pop(at), *rest]


def _count_of_gallery(arguments: list[str]) -> list[str]:
    """``--gallery N`` is now ``--num-gallery N``; ``--gallery`` names the folder itself."""
    for i, (word, value) in enumerate(zip(arguments, arguments[1:])):
        if word == '--gallery' and value.isdigit() and not Path(value).exists():
            _warn('--gallery N', '--num-gallery N')
            arguments[i] = '--num-gallery'
    return arguments


def _warn(old: str, new: str) -> None:
    print(f'warning: {old} is now spelt {new}; the old spelling ends with version 0.3',
          file=sys.stderr)
