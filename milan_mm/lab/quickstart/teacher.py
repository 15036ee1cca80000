# SPDX-License-Identifier: Apache-2.0
"""Which CLIP teaches in the quickstart, and why that one."""
import json
from pathlib import Path
from typing import NamedTuple

from ...checkpoints.io import write_atomically
from ...checkpoints.zoo import named, nearest
from ...errors import MilanError
from ...inference.teachers import split_spec
from ...reachable import check_teacher_at_hand
from ...resources import RESOURCES
from ..steps import read_json

SHIPPED = RESOURCES / 'demo/teacher'
"""A CLIP that was trained at length on the demo's drawings, without those held out."""
ENOUGH_PAIRS = 2000
"""Captioned images from which a CLIP of one's own is trained by default."""
_NOTE = 'teacher.json'


class Teacher(NamedTuple):
    """What teaches.

    Attributes:
        spec: a file, a folder, or ``MODEL:TAG``; None for one that is to be trained.
        reason: why, as part of a sentence.
    """
    spec: str | None
    reason: str


def check_teacher(given: str | None, train: bool) -> None:
    """What can be known before anything is made.

    Args:
        given: of ``--teacher``, or None.
        train: ``--train-teacher``.

    Raises:
        MilanError: if both are asked for, or the one that is given cannot be had.
    """
    if given and train:
        raise MilanError(f'--teacher {given} and --train-teacher exclude each other: give one')
    if given:
        model, _ = split_spec(given)
        if model is None and not named(given).exists():
            raise MilanError(f'--teacher {given}: there is no such file or folder, and it is no '
                             f'name of milan_mm.list_models(){nearest(given)}, nor MODEL:TAG such '
                             'as ViT-B-16-quickgelu:openai')
        check_teacher_at_hand(given)


def choose_teacher(given: str | None, train: bool, meta: dict) -> Teacher:
    """The teacher that was asked for, else the one that suits the images.

    Args:
        given, train: see :func:`check_teacher`.
        meta: of the data folder.

    Raises:
        MilanError: if the package's teacher is wanted and missing.
    """
    if given:
        return Teacher(given, 'given with --teacher')
    if train:
        return Teacher(None, 'trained on these images, as asked with --train-teacher')
    captions = meta['sizes'].get('captioned_files', 0)
    if meta['kind'] != 'demo' and captions >= ENOUGH_PAIRS:
        return Teacher(None, f'trained on these images: {captions:,} of them have captions, '
                       f'{ENOUGH_PAIRS:,} are enough')
    if not (SHIPPED / 'open_clip_config.json').is_file():
        raise MilanError(f'{SHIPPED} is missing, the teacher that comes with the package; train '
                         'one with --train-teacher, or give one with --teacher')
    if meta['kind'] == 'demo':
        return Teacher(str(SHIPPED), 'comes with the package; it was trained on these drawings, '
                       'without those held out')
    return Teacher(str(SHIPPED), 'comes with the package: with '
                   f'{captions or "no"} captioned images, a CLIP of one\'s own would learn little '
                   f'({ENOUGH_PAIRS:,} are enough; --train-teacher trains one all the same)')


def note_teacher(work: Path, teacher: Teacher) -> None:
    """Writes down which one taught."""
    text = json.dumps(teacher._asdict(), indent=1) + '\n'
    write_atomically(work / _NOTE, lambda path: path.write_text(text, encoding='utf-8'))


def find_teacher(work: Path) -> Teacher | None:
    """The teacher of a quickstart, as far as it has one; one it trained is its ``teacher``."""
    note = read_json(work / _NOTE)
    if note:
        return Teacher(note['spec'] or str(work / 'teacher'), note['reason'])
    if (work / 'teacher/open_clip_config.json').is_file():  # of an earlier version
        return Teacher(str(work / 'teacher'), 'trained on these images')
    return None


def noted_teacher(work: Path) -> Teacher:
    """:func:`find_teacher` where there must be one.

    Raises:
        MilanError: if the stage that chooses it was not run.
    """
    found = find_teacher(work)
    if found is None:
        raise MilanError(f'{work / _NOTE} is missing: run the stage "teacher" first '
                         '(--stage teacher)')
    return found


def options_of(spec: str) -> list[str]:
    """``--cfg-options`` that make a pretraining learn from it."""
    model, pretrained = split_spec(spec)
    key = 'model.target_generator'
    return [f'{key}.pretrained={pretrained}', *([f'{key}.model={model}'] if model else [])]
