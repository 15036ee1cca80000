# SPDX-License-Identifier: Apache-2.0
"""mmengine's checkpoint loading runs a pickle's code when the safe way fails.

onedl-mmengine 0.10.12 falls back to ``weights_only=False``; upstream 0.10.7 never asks for the
safe way. Its loaders are registered by prefix, a public API, so the local one is replaced.
"""
from typing import Any

from mmengine.runner import CheckpointLoader

from ..checkpoints.io import read_checkpoint


def install_safe_loading(trust: bool = False) -> None:
    """Sends ``load_from``, ``resume`` and ``Pretrained`` through :func:`read_checkpoint`.

    Args:
        trust: whether a pickle may run the code it names.
    """

    def load_from_safe_local(filename: str, map_location: Any) -> dict:
        return read_checkpoint(filename, trust)

    CheckpointLoader.register_scheme(prefixes='', loader=load_from_safe_local, force=True)
