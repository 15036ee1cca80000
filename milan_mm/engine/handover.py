# SPDX-License-Identifier: Apache-2.0
"""Handing weights from one run to the next: every tensor accounted for, or an error."""
from pathlib import Path
from typing import Dict, Optional, Union

from mmengine.logging import print_log
from torch import Tensor, nn

from ..checkpoint_io import read_checkpoint, state_of
from ..errors import MilanError
from .naming import to_openmmlab

# Fixed sine-cosine positions belong to a grid, not to what was learned.
_POSITIONS = ('pos_embed', 'decoder_pos_embed')


def load_student(model: nn.Module, path: Union[str, Path], trust: bool = False) -> str:
    """Starts a model's encoder, and if it can its decoder, from an earlier MILAN or MAE run.

    The encoder's tensors must be there all of them, and no other. The decoder's are taken if all
    of them fit; a run of another kind has another decoder, which then starts fresh.

    Args:
        model: with ``backbone`` and ``neck``.
        path: a training checkpoint, or a student in the published or OpenMMLab's naming.
        trust: see :func:`read_checkpoint`.

    Returns:
        A sentence that says how many tensors came from the checkpoint.

    Raises:
        MilanError: naming the first encoder tensor that is missing, left over or misshapen.
    """
    state = student_state(path, trust)
    encoder = take('backbone.', state)
    own = {k: v for k, v in model.backbone.state_dict().items() if k not in _POSITIONS}
    problem = mismatch(own, encoder)
    if problem:
        raise MilanError(f'{path} does not fit the encoder: {problem}. Was it trained with '
                         'another architecture or patch size?')
    model.backbone.load_state_dict({**model.backbone.state_dict(), **encoder})
    words = f'{len(own)} of {len(own)} encoder tensors (100 %) came from {path}'
    decoder = take('neck.', state)
    own = {k: v for k, v in model.neck.state_dict().items() if k not in _POSITIONS}
    problem = mismatch(own, decoder) if decoder else 'the checkpoint has none'
    if problem:
        words += f'; the decoder starts fresh ({problem})'
    else:
        model.neck.load_state_dict({**model.neck.state_dict(), **decoder})
        words += f', and {len(own)} of {len(own)} decoder tensors'
    print_log(words, logger='current')
    return words


def student_state(path: Union[str, Path], trust: bool = False) -> Dict[str, Tensor]:
    """The weights of encoder and decoder in a file, in OpenMMLab's naming."""
    state = state_of(read_checkpoint(path, trust))
    if any(key.startswith('blocks.') for key in state):
        mae = any(key.startswith('decoder_blocks.0.attn.qkv') for key in state)
        state = to_openmmlab(state, mae_decoder=mae)
    if not any(key.startswith('backbone.') for key in state):
        raise MilanError(f'{path} holds no encoder: expected backbone.* or blocks.*, found '
                         f'{list(state)[:3]}')
    return state


def take(prefix: str, state: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """The part of a state below a prefix, positions left out."""
    found = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return {k: v for k, v in found.items() if k not in _POSITIONS}


def mismatch(own: Dict[str, Tensor], given: Dict[str, Tensor]) -> Optional[str]:
    """What keeps one state dict from being the other, in words; None if nothing does."""
    missing = [k for k in own if k not in given]
    if missing:
        return f'{len(missing)} tensors are missing, the first is {missing[0]}'
    left_over = [k for k in given if k not in own]
    if left_over:
        return f'{len(left_over)} tensors are left over, the first is {left_over[0]}'
    for key, value in own.items():
        if value.shape != given[key].shape:
            return (f'{key} is {tuple(given[key].shape)} in the checkpoint and '
                    f'{tuple(value.shape)} here')
    return None
