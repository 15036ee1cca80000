# SPDX-License-Identifier: Apache-2.0
"""Finetuning a part of a ViT: frozen blocks, LoRA, and blocks that are computed twice."""
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmpretrain.models.peft.lora import LoRALinear
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..checkpoints.lora import ADDED, merge_lora
from ..errors import MilanError

_OPTIONS = {'rank', 'alpha', 'drop_rate', 'targets'}


class NamedLoRALinear(LoRALinear):
    """mmpretrain's ``LoRALinear`` whose tensors keep the names of the plain layer.

    ``weight`` and ``bias`` lie in a checkpoint where they always do, the low-rank matrices and
    their scale (``lora_down.weight``, ``lora_up.weight``, ``scaling``) beside them, so that
    whoever reads the encoder alone can merge them, see :func:`merge_lora`.
    """

    def __init__(self, plain: nn.Linear, rank: int, alpha: float, drop_rate: float) -> None:
        super().__init__(plain, alpha, rank, drop_rate)
        scaling = self.scaling
        del self.scaling
        self.register_buffer('scaling', torch.tensor(float(scaling)))
        self._register_state_dict_hook(_outward)
        self._register_load_state_dict_pre_hook(_inward)

    def reset(self) -> None:
        """As it starts: the layer computes what the plain one does."""
        nn.init.kaiming_uniform_(self.lora_down.weight, a=5**.5)
        nn.init.zeros_(self.lora_up.weight)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain layer with the matrices in its weight."""
        state = merge_lora({f'x.{key}': value for key, value in self.state_dict().items()})[0]
        self.original_layer.weight.copy_(state['x.weight'])
        return self.original_layer


def _outward(module: nn.Module, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    for name in ('weight', 'bias'):
        if f'{prefix}original_layer.{name}' in state:
            state[prefix + name] = state.pop(f'{prefix}original_layer.{name}')


def _inward(state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name in ('weight', 'bias'):
        if prefix + name in state:
            state[f'{prefix}original_layer.{name}'] = state.pop(prefix + name)


def merge_layers(model: nn.Module) -> int:
    """Puts plain layers in the place of those with LoRA, which compute the same; gives how many."""
    found = list(_lora_layers(model))
    for parent, name, layer in found:
        setattr(parent, name, layer.merged())
    return len(found)


def _lora_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, NamedLoRALinear]]:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, NamedLoRALinear):
                yield parent, name, child


class FinetunedInPart(nn.Module):
    """Mixed into a ViT of mmpretrain's names: what of it is trained, and what a block keeps.

    Attributes:
        with_cp: whether a block's inside is computed again in the backward pass.
    """

    frozen_stages: int
    layers: nn.ModuleList
    with_cp = False
    new_parameters: tuple[str, ...]

    def train_in_part(self, lora: dict | None) -> None:
        """To be called once all parts are there.

        Args:
            lora: None, or ``rank``, and optionally ``alpha`` (by default the rank, a scale of 1),
                ``drop_rate`` and ``targets``, the last parts of the names of linear layers.

        Raises:
            MilanError: if the options are none, or there is no such layer.
        """
        if self.frozen_stages > 0 and hasattr(self, 'register_tokens'):
            self.register_tokens.requires_grad_(False)
        if lora:
            self._add_lora(**_checked(lora, self.frozen_stages))

    def _add_lora(self, rank: int, alpha: float | None = None, drop_rate: float = 0.,
                  targets: Sequence[str] = ('attn.qkv', 'attn.proj')) -> None:
        for name, parameter in self.named_parameters():
            new = any(re.fullmatch(pattern, name) for pattern in self.new_parameters)
            parameter.requires_grad_(new)
        places = [name for name, part in self.named_modules() if isinstance(part, nn.Linear)]
        chosen = [name for name in places if name.startswith('layers.')
                  and any(name.endswith(f'.{target}') for target in targets)]
        if not chosen:
            known = sorted({name.split('.', 2)[2] for name in places if name.startswith('layers.')})
            raise MilanError(f'lora.targets={list(targets)} names no linear layer of the blocks; '
                             f'they have {", ".join(known)}')
        for name in chosen:
            parent, _, last = name.rpartition('.')
            layer = NamedLoRALinear(self.get_submodule(name), rank, alpha or rank, drop_rate)
            layer.original_layer.requires_grad_(False)
            setattr(self.get_submodule(parent), last, layer)
        self.new_parameters = (*self.new_parameters, ADDED.pattern)

    def reset_lora(self) -> None:
        """After an initialisation of all linear layers."""
        for _, _, layer in _lora_layers(self):
            layer.reset()

    def train(self, mode: bool = True) -> Any:
        """Frozen blocks drop no paths and no units: they compute what they will."""
        super().train(mode)
        if mode and self.frozen_stages > 0:
            for layer in self.layers[:self.frozen_stages]:
                layer.eval()
        return self

    def through(self, layer: nn.Module, *inputs: Tensor) -> Tensor:
        """One block, computed again in the backward pass where ``with_cp`` says so."""
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)


def check_frozen(frozen: Any, depth: Any) -> None:
    """Raises MilanError if there are no such blocks to freeze; before mmpretrain looks for them."""
    if isinstance(depth, int) and not (type(frozen) is int and -1 <= frozen <= depth):
        raise MilanError(f'frozen_stages={frozen}: the ViT has {depth} blocks; {depth} freezes the '
                         'whole of it, -1 nothing')


def _checked(lora: dict, frozen: int) -> dict:
    unknown = sorted(set(lora) - _OPTIONS - {'_delete_'})
    rank = lora.get('rank')
    if unknown or type(rank) is not int or rank < 1:
        raise MilanError(f'lora takes {", ".join(sorted(_OPTIONS))}, of which rank is a whole '
                         f'number from 1; got {dict(lora)}. For example model.backbone.lora.rank=8')
    if frozen > 0:
        raise MilanError('lora freezes the whole backbone but for its own matrices: leave '
                         f'frozen_stages={frozen} out')
    return {key: value for key, value in lora.items() if key != '_delete_'}
