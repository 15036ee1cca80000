# SPDX-License-Identifier: Apache-2.0
"""mmpretrain 1.2 and 1.3 import transformers for nineteen models of images and text.

Where transformers is not installed, mmpretrain registers names in their place that say so when
they are built. The same names are registered here, and load the models then.
"""
import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.registry import Registry

_PARTS = ('mmpretrain.models.utils', 'mmpretrain.models.multimodal', 'mmpretrain.models',
          'mmpretrain.datasets')


@contextlib.contextmanager
def late_multimodal() -> Iterator[None]:
    """While it lasts, mmpretrain is imported without these models; later they are there."""
    from mmpretrain.utils import dependency
    if not dependency.WITH_MULTIMODAL or any(name in sys.modules for name in _PARTS):
        yield
        return
    asked = dependency.register_multimodal_placeholder
    dependency.WITH_MULTIMODAL = False
    dependency.register_multimodal_placeholder = _register
    try:
        yield
        importlib.import_module('mmpretrain.datasets')
    finally:
        dependency.WITH_MULTIMODAL = True
        dependency.register_multimodal_placeholder = asked


def _register(names: Sequence[str], registry: Registry) -> None:
    for name in names:

        def build(*args: Any, name: str = name, **kwargs: Any) -> Any:
            _load(names, registry)
            model = registry.get(name)
            assert model is not None
            return model(*args, **kwargs)

        registry.register_module(name=name, module=build)


def _load(names: Sequence[str], registry: Registry) -> None:
    """Registers the models; the parts of mmpretrain that were imported without them have them."""
    for name in names:
        registry.module_dict.pop(name)  # the dict itself
    for module in _PARTS:
        importlib.reload(sys.modules[module])
