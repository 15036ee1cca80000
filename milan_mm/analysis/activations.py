# SPDX-License-Identifier: Apache-2.0
"""Looking into a transformer while it runs; nothing of it is changed."""
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..models.rotary import rotate
from ..structures import gather_tokens

_MOST_PREFIX = 16  # CLS and registers before the patches; more is another grid
_LEAST_PARAMETERS = 6  # tensors of a transformer's block; fewer is a part of one


def token_blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks of the transformer in a module: its longest list of equal parts.

    Found by shape and not by name, so that it serves mmpretrain's, open_clip's and timm's towers.

    Returns:
        The blocks in order; empty if there is no such list, as in a target of pixels.
    """
    best: Sequence[nn.Module] = ()
    for part in module.modules():
        if not isinstance(part, (nn.ModuleList, nn.Sequential)) or len(part) <= len(best):
            continue
        alike = len({type(block) for block in part}) == 1
        if alike and len(list(part[0].parameters())) >= _LEAST_PARAMETERS:
            best = part
    return list(best)


@contextlib.contextmanager
def on_output(modules: Sequence[nn.Module],
              call: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Within it, ``call(number of the module, its output)`` is called whenever one has run."""

    def hook(number: int) -> Callable:
        def note(_: nn.Module, __: tuple, output: Any) -> None:
            call(number, output[0] if isinstance(output, tuple) else output)
        return note

    with _hooks(module.register_forward_hook(hook(i)) for i, module in enumerate(modules)):
        yield


@contextlib.contextmanager
def on_attention(layers: Sequence[nn.Module],
                 call: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Within it, ``call(number of the layer, attention)`` is called whenever one runs.

    Args:
        layers: mmpretrain's ``TransformerEncoderLayer``, the blocks of our encoder.
        call: gets the attention (B, heads, L, L); row i says from where token i takes.
    """

    def hook(number: int) -> Callable:
        def note(attn: nn.Module, inputs: tuple) -> None:
            call(number, attention_of(attn, *inputs))
        return note

    with _hooks(layer.attn.register_forward_pre_hook(hook(i)) for i, layer in enumerate(layers)):
        yield


def attention_of(attn: nn.Module, tokens: Tensor, angles: Tensor | None = None) -> Tensor:
    """The attention (B, heads, L, L) that mmpretrain's ``MultiheadAttention`` never forms.

    Args:
        attn: the module.
        tokens: (B, L, D), its input.
        angles: of rotary positions, its second input.
    """
    qkv = attn.qkv(tokens).unflatten(-1, (3, attn.num_heads, attn.head_dims))
    query, key, _ = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    if angles is not None:
        query, key = rotate(query, angles), rotate(key, angles)
    return (query.float() @ key.float().transpose(-2, -1) * attn.head_dims**-0.5).softmax(dim=-1)


def mlp_inputs(layers: Sequence[nn.Module]) -> list[nn.Module]:
    """The linear map before the activation of each layer's MLP; empty for MLPs of another kind."""
    maps = []
    for layer in layers:
        parts = getattr(getattr(layer, 'ffn', None), 'layers', None)
        first = parts[0][0] if parts is not None and isinstance(parts[0], nn.Sequential) else None
        if not isinstance(first, nn.Linear):
            return []
        maps.append(first)
    return maps


def cls_and_patches(tokens: Tensor, ids: Tensor, patches: int) -> tuple | None:
    """The image's token and some of its patches, out of whatever a tower's tokens are.

    Args:
        tokens: (B, P + N, C) with P prefix tokens: CLS, registers, or none.
        ids: (B, K) raster indices of the patches wanted.
        patches: N.

    Returns:
        (B, C), the first token or, where there is no prefix, the mean of the patches; and
        (B, K, C). None if the tokens are of another grid.
    """
    prefix = tokens.shape[1] - patches if tokens.ndim == 3 else -1
    if not 0 <= prefix <= _MOST_PREFIX or len(tokens) != len(ids):
        return None
    tokens = tokens.float()
    cls = tokens[:, 0] if prefix else tokens.mean(dim=1)
    return cls, gather_tokens(tokens[:, prefix:], ids)


@contextlib.contextmanager
def _hooks(handles: Iterator[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    made = list(handles)
    try:
        yield
    finally:
        for handle in made:
            handle.remove()
