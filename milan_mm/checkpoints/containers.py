# SPDX-License-Identifier: Apache-2.0
"""What a file wraps its encoder in, taken off by rule: containers, wrappers, students and teachers.

The encoder is found by the norm of its blocks, which every library names in its own way. What
stands before that name is the wrapping: ``module.`` (DDP), ``_orig_mod.`` (torch.compile),
``model.`` (Lightning), ``student.backbone.`` (DINO), and the key of the dict it lies in.
"""
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from ..errors import MilanError
from ..wording import some_of
from .lora import merge_lora

#: Which weights are wanted of a file with both: 'ema' (an average, a teacher) or 'raw'.
WEIGHTS = ('ema', 'raw')
_ANCHORS = re.compile(r'(?P<wrapping>(?:.*?[./])??)(?:'
                      r'blocks\.(?:\d+\.)?\d+\.norm1\.weight|'  # timm, the authors
                      r'layers\.\d+\.ln1\.weight|'  # OpenMMLab
                      r'(?:encoder\.)?layer\.\d+\.(?:layernorm_before|norm1)\.weight|'  # HF
                      r'vision_model\.encoder\.layers\.\d+\.layer_norm1\.weight|'  # its CLIP
                      r'transformer\.resblocks\.\d+\.ln_1\.weight|'  # CLIP
                      r'encoder\.layers\.encoder_layer_\d+\.ln_1\.weight|'  # torchvision
                      r'Transformer/encoderblock_\d+/LayerNorm_0/scale)')
_AVERAGED = {'ema', 'teacher', 'momentum', 'averaged', 'swa', 'shadow', 'target'}
# Never the encoder: this package's teachers, text towers, the stages of hierarchical networks.
_OTHERS = re.compile(r'(target|importance)_generator\.|(^|[._])text|(layers|stages)\.\d+\.$')


class Unwrapped(NamedTuple):
    """An encoder without its wrapping.

    Attributes:
        state: its tensors, and what has the same wrapping; OpenMMLab's keep ``backbone.``.
        beside: names of tensors outside the wrapping.
        words: what was taken off, and which weights were taken; empty if there is nothing to say.
    """
    state: dict[str, Tensor]
    beside: list[str]
    words: str


class _Place(NamedTuple):
    path: tuple[str, ...]  # keys of the dicts it lies in
    wrapping: str
    averaged: bool

    @property
    def name(self) -> str:
        return ' > '.join([*self.path, *([self.wrapping] if self.wrapping else [])]) or 'the file'


def unwrap(checkpoint: dict[str, Any], source: str, weights: str | None = None) -> Unwrapped:
    """Finds the encoder in what was saved.

    Args:
        checkpoint: see :func:`read_checkpoint`.
        source: what messages call the file.
        weights: one of :data:`WEIGHTS`; None takes the averaged ones where there are both.

    Raises:
        MilanError: if there are several encoders and no rule tells which, or not the weights asked
            for.
    """
    if weights not in (None, *WEIGHTS):
        raise MilanError(f'weights must be one of {", ".join(WEIGHTS)}, got {weights!r}')
    states = dict(_states(checkpoint))
    # mmengine's EMAHook puts the averages in the place of the weights, and these beside them.
    swapped = 'ema_state_dict' in checkpoint and isinstance(checkpoint.get('meta'), dict)
    places = [_Place(path, wrapping, _is_averaged(path, wrapping, swapped))
              for path, state in states.items() for wrapping in _wrappings(state)]
    if not places:
        path = next(iter(states), ())
        state, _ = merge_lora(states.get(path, {}), source)
        return Unwrapped({k.removeprefix('module.'): v for k, v in state.items()}, [], '')
    place, other = _choose(places, source, weights)
    state, beside = {}, []
    for name, value in states[place.path].items():
        if name.startswith(place.wrapping):
            name = name[len(place.wrapping):]
            state[re.sub(r'^blocks\.\d+\.(\d+\.)', r'blocks.\1', name)] = value  # DINOv2's chunks
        else:
            beside.append(name)
    empty = next((name for name, value in state.items() if not value.numel()), None)
    if empty:
        raise MilanError(f'{source}: {empty} is empty, as where DeepSpeed (ZeRO-3) or FSDP spread '
                         'the weights over processes. Gather them first: zero_to_fp32.py, which '
                         'lies beside the checkpoint, or save a full state dict')
    state, merged = merge_lora(state, source)
    said = [_words(place, other), f'LoRA merged into {merged} weights' * bool(merged)]
    return Unwrapped(state, beside, ', '.join(filter(None, said)))


def _states(checkpoint: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """The dicts of tensors in a checkpoint and one level down, the usual place first."""
    def tensors(part: dict) -> dict[str, Tensor]:
        return {k: v for k, v in part.items() if isinstance(k, str) and isinstance(v, Tensor)}

    keys = sorted((k for k, v in checkpoint.items() if isinstance(k, str) and isinstance(v, dict)),
                  key=lambda k: (k not in ('state_dict', 'model'), ))
    for path, part in (*(((k, ), checkpoint[k]) for k in keys), ((), checkpoint)):
        if found := tensors(part):
            yield path, found
    for key in keys:
        for inner, part in checkpoint[key].items():
            if isinstance(inner, str) and isinstance(part, dict) and (found := tensors(part)):
                yield (key, inner), found


def _wrappings(state: dict[str, Tensor]) -> list[str]:
    """What stands before the encoders' own names, each once."""
    found: dict[str, None] = {}
    for name in state:
        match = _ANCHORS.fullmatch(name)
        if match and not _OTHERS.search(match['wrapping']):
            wrapping = match['wrapping']
            if '.ln1.' in name:  # the neck stands beside OpenMMLab's backbone
                wrapping = wrapping.removesuffix('backbone.')
            found[wrapping] = None
    return list(found)


def _is_averaged(path: tuple[str, ...], wrapping: str, swapped: bool) -> bool:
    if swapped:
        return path == ('state_dict', )
    return bool(_AVERAGED & set(re.split(r'[^a-z]+', '.'.join((*path, wrapping)).lower())))


def _choose(places: list[_Place], source: str,
            weights: str | None) -> tuple[_Place, _Place | None]:
    """The encoder to take, and the first of the other kind, if there is one."""
    averaged, raw = ([p for p in places if p.averaged == kind] for kind in (True, False))
    wanted, others = (raw, averaged) if weights == 'raw' or not averaged else (averaged, raw)
    if not wanted or (weights == 'ema' and not averaged):
        raise MilanError(f'{source} holds no {"averaged" if weights == "ema" else "raw"} weights '
                         f'(it has {places[0].name}); leave --weights {weights} out')
    # An image tower beside a text tower (CLIP), a network beside its copy at another depth.
    wanted = [p for p in wanted if p.wrapping.endswith('visual.')] or wanted
    wanted = [p for p in wanted if p.path == wanted[0].path] or wanted
    if len(wanted) > 1:
        raise MilanError(f'{source} holds several encoders ({some_of([p.name for p in wanted], 3)})'
                         ': save the one you want by itself, with torch.save')
    return wanted[0], others[0] if others else None


def _words(place: _Place, other: _Place | None) -> str:
    usual = place.path in ((), ('state_dict', ), ('model', ))
    words = [] if usual and place.wrapping in ('', 'module.', 'visual.') else [
        f'unwrapped from {place.name}']
    if other:
        kinds = ('averaged', 'raw') if place.averaged else ('raw', 'averaged')
        words.append(f'the {kinds[0]} weights ({place.name}), not the {kinds[1]} ones '
                     f'({other.name}: --weights {"raw" if place.averaged else "ema"})')
    return ', '.join(words)
