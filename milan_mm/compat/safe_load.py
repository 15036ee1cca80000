# SPDX-License-Identifier: Apache-2.0
"""mmengine runs what a checkpoint says: its pickles, and the text of its config.

onedl-mmengine 0.10.12 falls back to ``weights_only=False`` where the safe way fails; upstream
0.10.7 never asks for the safe way; both load what they download in that manner. On resuming, both
parse ``meta['config']`` as Python, to compare the number of GPUs then and now. Their loaders are
registered by scheme, a public API, so all of them are replaced.
"""
import os
from collections.abc import Callable
from typing import Any

from mmengine.runner import CheckpointLoader

FORCE_WEIGHTS_ONLY = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'


def install_safe_loading(read: Callable[[str, bool], dict[str, Any]], trust: bool = False) -> None:
    """Sends ``load_from``, ``resume`` and ``Pretrained`` of every scheme through one reader.

    Whatever else calls ``torch.load`` in this process, or in those it starts, is kept to tensors
    and plain values by torch's own environment variable.

    Args:
        read: from a checkpoint's name, and whether it is trusted, to its content.
        trust: whether a pickle may run the code it names. The config is not run even then.
    """

    def load_from_anywhere(filename: str, map_location: Any = None) -> dict:
        checkpoint = read(filename, trust)
        if isinstance(checkpoint.get('meta'), dict):
            checkpoint['meta'].pop('config', None)
        return checkpoint

    CheckpointLoader.register_scheme(list(CheckpointLoader._schemes), load_from_anywhere,
                                     force=True)
    if trust:
        os.environ.pop(FORCE_WEIGHTS_ONLY, None)
    else:
        os.environ[FORCE_WEIGHTS_ONLY] = '1'
