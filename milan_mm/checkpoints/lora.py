# SPDX-License-Identifier: Apache-2.0
"""Low-rank matrices of LoRA (arXiv 2106.09685) added to the weights that they lie beside."""
import re

from torch import Tensor

from ..errors import MilanError

#: Names of tensors that LoRA adds to a layer.
ADDED = re.compile(r'.*\.(lora_down\.weight|lora_up\.weight|scaling)')


def merge_lora(state: dict[str, Tensor], source: str = 'the file') -> tuple[dict[str, Tensor], int]:
    """W becomes W + scaling * up @ down, computed in float32 at least.

    Args:
        state: tensors by name; ``X.weight``, ``X.lora_down.weight`` (r, in), ``X.lora_up.weight``
            (out, r) and ``X.scaling`` of each layer with LoRA.
        source: what messages call them.

    Returns:
        The tensors of the plain layers, and how many were merged.

    Raises:
        MilanError: if a matrix lies there without the weight that it is added to.
    """
    downs = [key for key in state if key.endswith('.lora_down.weight')]
    if not downs:
        return state, 0
    merged = {key: value for key, value in state.items() if not ADDED.fullmatch(key)}
    for key in downs:
        layer = key.removesuffix('.lora_down.weight')
        parts = [state.get(f'{layer}.{name}') for name in ('weight', 'lora_up.weight', 'scaling')]
        if any(part is None for part in parts):
            raise MilanError(f'{source} holds LoRA matrices ({layer}) without the weights that '
                             "they are added to, as mmpretrain's LoRAModel saves them: merge them "
                             'first, with its tools/model_converters/merge_lora_weight.py')
        weight, up, scaling = (part for part in parts if part is not None)
        added = scaling.double() * (up.double() @ state[key].double())
        merged[f'{layer}.weight'] = (weight.double() + added).to(weight.dtype)
    return merged, len(downs)
