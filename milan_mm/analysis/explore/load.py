# SPDX-License-Identifier: Apache-2.0
"""From checkpoints, a folder and a teacher to an explorer."""
from collections.abc import Callable
from pathlib import Path

import torch

from ...errors import MilanError
from ...inference.checkpoint import Checkpoint
from ...inference.teachers import teacher_of
from ...models import CLIPTargetGenerator
from ..diagnosis.subject import Subject, load_subject
from ..visualization.views import check_colours
from ..zero_shot.prompts import TextTower, load_text_tower
from .explorer import Explorer
from .gallery import encode_folder


def load_explorer(checkpoint: Path, compare: Path | None = None, *,
                  images: str | Path | None = None, most: int = 300,
                  config: str | None = None, teacher: str | None = None, texts: str | None = None,
                  options: dict | None = None, device: str | torch.device = 'cpu',
                  trust: bool = False) -> tuple[Explorer, dict[str, str]]:
    """Loads everything that is asked for.

    Args:
        checkpoint: of a pretraining, or any encoder.
        compare: a second one.
        images: a folder to choose from; see :func:`encode_folder`.
        most: images taken of it.
        config, teacher, options, device, trust: see :func:`load_subject`; ``config`` and
            ``options`` are the first one's.
        texts: a CLIP whose text tower is used; None for the teacher's, if it has one.

    Returns:
        The explorer, and what the page says of it, by name.

    Raises:
        MilanError: if a checkpoint, the teacher or the folder cannot be read.
    """
    subjects = [load_subject(checkpoint, config, teacher, options, device, trust)]
    names = [_name(checkpoint)]
    if compare is not None:
        second = load_subject(compare, None, teacher, None, device, trust)
        # The teacher of an encoder alone is asked once, by the first.
        subjects.append(second if second.model else second._replace(reference=None))
        names.append(_name(compare))
    for subject in subjects:
        check_colours(subject.backbone)
    tower, why = _text_tower(subjects[0], texts is not None, lambda: texts or teacher or teacher_of(
        Checkpoint(checkpoint, config, options, trust)))
    gallery = encode_folder(images, subjects, most) if images else None
    facts = {name: _words(subject) for name, subject in zip(names, subjects)}
    facts['words'] = 'from the teacher\'s text tower' if tower else why
    return Explorer(subjects, names, gallery, tower), facts


def _name(checkpoint: Path) -> str:
    return f'{checkpoint.parent.name}/{checkpoint.name}'.lstrip('/')


def _words(subject: Subject) -> str:
    rows, columns = subject.backbone.grid_size
    taught = f', with its {subject.reference_name}' if subject.reference else ', no teacher'
    return (f'{len(subject.backbone.layers)} blocks, {subject.backbone.embed_dims} wide, '
            f'{rows} × {columns} patches{taught}')


def _text_tower(subject: Subject, asked_for: bool,
                find: Callable[[], str]) -> tuple[TextTower | None, str]:
    """The text side of the teacher, and why there is none.

    Args:
        subject: whose teacher it is.
        asked_for: whether it is an error that there is none.
        find: says where the CLIP is.

    Raises:
        MilanError: if one was asked for and cannot be used.
    """
    if not isinstance(subject.reference, CLIPTargetGenerator):
        if asked_for:
            raise MilanError('--text-tower needs a CLIP teacher, and this model has '
                             f'{subject.reference_name or "no teacher"}; name one: --teacher SPEC')
        return None, 'none: the teacher is no CLIP'
    try:
        tower = load_text_tower(find())
        width = getattr(tower.model, 'text_projection', None)
        found = width.shape[-1] if isinstance(width, torch.Tensor) else subject.reference.dim
        if found != subject.reference.dim:
            raise MilanError(f'the texts are {found} wide and the teacher\'s features '
                             f'{subject.reference.dim}: they are of another CLIP')
        return tower, ''
    except MilanError as error:
        if asked_for:
            raise
        return None, f'none: {error}'
