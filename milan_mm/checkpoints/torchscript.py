# SPDX-License-Identifier: Apache-2.0
"""The tensors of a TorchScript archive, none of its code being run."""
import collections
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def is_torchscript(path: Path) -> bool:
    """Whether the file is an archive of ``torch.jit.save``."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith('constants.pkl') for name in archive.namelist())


def read_torchscript_state(path: Path) -> dict[str, Tensor]:
    """The parameters and buffers of a TorchScript archive, none of its code being run.

    OpenAI published CLIP as such archives. The pickle inside is a tree of modules; only tensors,
    their storages and empty stand-ins for the modules' classes are let through.
    """
    with zipfile.ZipFile(path) as archive:
        index = next(n for n in archive.namelist() if n.endswith('/data.pkl'))
        reader = _TorchScriptUnpickler(archive, index.removesuffix('data.pkl'))
        tree = reader.load()
    state: dict[str, Tensor] = {}
    _collect(tree, '', state)
    return state


_STORAGES = dict(FloatStorage=torch.float32, HalfStorage=torch.float16,
                 DoubleStorage=torch.float64, BFloat16Storage=torch.bfloat16,
                 LongStorage=torch.int64, IntStorage=torch.int32, BoolStorage=torch.bool)


class _Module(dict):
    """Stands for an object of any TorchScript class: its attributes, no behaviour."""

    def __setstate__(self, attributes: dict) -> None:
        self.update(attributes)


class _TorchScriptUnpickler(pickle.Unpickler):

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(root + 'data.pkl'))
        self.archive, self.root = archive, root
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith('__torch__'):
            return _Module
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            return _rebuild_tensor
        if (module, name) == ('collections', 'OrderedDict'):
            return collections.OrderedDict
        if module == 'torch.jit._pickle':  # typed lists and dicts: only their contents matter
            return lambda *args: args[0] if args else None
        if module == 'torch' and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f'the archive names {module}.{name}')

    def persistent_load(self, pid: tuple) -> Tensor:
        _, dtype, key, _, _ = pid
        if key not in self.storages:
            data = bytearray(self.archive.read(f'{self.root}data/{key}'))
            self.storages[key] = torch.frombuffer(data, dtype=dtype)
        return self.storages[key]


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset).clone()


def _collect(node: Any, prefix: str, state: dict[str, Tensor]) -> None:
    for name, value in node.items():
        if isinstance(value, Tensor):
            state[prefix + name] = value
        elif isinstance(value, _Module):
            _collect(value, f'{prefix}{name}.', state)
