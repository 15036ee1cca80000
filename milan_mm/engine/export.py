# SPDX-License-Identifier: Apache-2.0
"""The student alone, in the naming that others load."""
import json
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Union

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..checkpoint_io import read_checkpoint, write_atomically
from ..errors import MilanError
from .handover import student_state
from .naming import to_published

NAMINGS = ('authors', 'mmpretrain')


class Exported(NamedTuple):
    """What was written, and what was left out.

    Attributes:
        kept: number of tensors in the file.
        dropped: names of what the source held beside them.
    """
    kept: int
    dropped: List[str]


def export_student(source: Union[str, Path],
                   target: Union[str, Path],
                   naming: str,
                   trust: bool = False) -> Exported:
    """Writes encoder (and decoder) of a training checkpoint under other names; values unchanged.

    Args:
        source: a checkpoint of MILAN or MAE, in any naming :func:`student_state` reads.
        target: ``.pth`` or ``.safetensors``.
        naming: 'authors' for the published checkpoints' naming, encoder and decoder, below the
            key 'model'; 'mmpretrain' for ``backbone.*`` alone, as its ViTs load it.
        trust: see :func:`read_checkpoint`.

    Raises:
        MilanError: if the source holds no student or the target's ending is unknown.
    """
    if naming not in NAMINGS:
        raise MilanError(f'unknown naming {naming!r}; known are {list(NAMINGS)}')
    target = Path(target)
    if target.suffix not in ('.pth', '.pt', '.safetensors'):
        raise MilanError(f'{target}: the file must end in .pth, .pt or .safetensors')
    student = student_state(source, trust)
    kept = {k: v for k, v in student.items()
            if k.startswith('backbone.') or (k.startswith('neck.') and naming == 'authors')}
    renamed = to_published(kept) if naming == 'authors' else kept
    described = read_checkpoint(source, trust).get('meta') or {}
    described = described.get('milan_mm') if isinstance(described, dict) else None
    _write(target, {k: v.contiguous() for k, v in renamed.items()}, described, naming)
    return Exported(len(renamed), sorted(set(student) - set(kept)))


def _write(target: Path, state: Dict[str, Tensor], described: Any, naming: str) -> None:
    if target.suffix == '.safetensors':
        metadata = {'milan_mm': json.dumps(described)} if described else None
        write_atomically(target, lambda path: save_file(state, path, metadata))
        return
    key = 'model' if naming == 'authors' else 'state_dict'
    content = {key: state, 'meta': {'milan_mm': described} if described else {}}
    write_atomically(target, lambda path: torch.save(content, path))
