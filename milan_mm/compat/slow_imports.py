# SPDX-License-Identifier: Apache-2.0
"""What dependencies import at their own import and few programs use: a third of a command's start.

* mmpretrain 1.2 and 1.3 import all of mmdet, with it matplotlib and SciPy, for one layer of mmdet's
  ResNet (``ResLayerExtraNorm``); and transformers for their models of images and text, see
  ``late_multimodal.py``,
* torchvision 0.20 and 0.29 import torch._dynamo, with it SymPy and Triton, for a question that
  RoIAlign asks where deterministic algorithms are demanded,
* mmengine 0.10 imports transformers to register its Adafactor,
* open_clip 3.3 imports transformers for text towers of Hugging Face and for CoCa,
* mmcv 2.1 and 2.3 import tifffile, one of four readers of images.

While they are imported, a stand-in is in the place of each such module. What they take from it
imports the module when it is called. A module that has been imported before is left as it is.
Only a command does this: a class of such a module is a function then, which is enough for those
who take it here, and might not be for other people's code around ``import milan_mm``.
"""
import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def import_lean() -> None:
    """Imports the five without what they need not; to be called before anybody imports them."""
    from .quiet_import import quiet_import
    with quiet_import():
        _import('mmcv', 'tifffile')
        _import('torchvision', 'torch._dynamo.utils')
        _import('mmengine.optim', *(() if _there('deepspeed') else ('transformers', )))
        from .late_multimodal import late_multimodal
        from .mmcv_ops import install
        install()  # first: mmpretrain imports what it can of mmcv.ops
        with late_multimodal():
            _import('mmpretrain.models', 'mmpretrain.models.utils.res_layer_extra_norm')
        _import('open_clip', 'open_clip.coca_model', 'open_clip.hf_model')


def _import(importer: str, *spared: str) -> None:
    """Imports a module while stand-ins are in the place of others."""
    if importer in sys.modules:
        return
    names = [name for name in spared if name not in sys.modules and _there(name.split('.')[0])]
    sys.modules.update({name: _StandIn(name) for name in names})
    try:
        importlib.import_module(importer)
    finally:
        for name in names:
            del sys.modules[name]


def _there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


class _StandIn(ModuleType):
    """A module whose functions and classes import it when they are called."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        # Whoever looks for the module by ``find_spec`` gets an error if a loaded one has no spec.
        self.__spec__ = ModuleSpec(name, None, origin=__name__)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith('__'):
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')
        return _later(self.__name__, name)


def _later(module: str, name: str) -> Callable[..., Any]:

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    return call
