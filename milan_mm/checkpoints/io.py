# SPDX-License-Identifier: Apache-2.0
"""Reading weights without running what a file says.

A pickle can run code when it is loaded. Every file of weights goes through
:func:`read_checkpoint`, which reads safetensors, what torch's restricted unpickler accepts, and
TorchScript archives by their tensors alone. Archives are compared with their checksums first.
"""
import argparse
import contextlib
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from ..compat.safe_load import FORCE_WEIGHTS_ONLY
from ..errors import MilanError
from .jax import read_npz
from .torchscript import is_torchscript, read_torchscript_state

try:
    from numpy._core import multiarray
except ImportError:  # numpy < 2
    from numpy.core import multiarray  # type: ignore[no-redef]


def _statistic(owner: Any, name: str) -> Any:
    """Stands for ``getattr`` in a pickle: gives ``HistoryBuffer``'s own methods, nothing else."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f'the file asks for attribute {name!r} of {owner!r}')


class _Values(dict):
    """Stands for classes of settings that files name: their values are kept, their code is not."""

    def __setstate__(self, state: Any) -> None:
        pass


def _joined(*parts: str) -> str:
    """Stands for a path."""
    return '/'.join(parts)


# What OpenMMLab's training checkpoints hold beside tensors: histories of logged scalars, whose
# methods are pickled by name; and argparse's options, which MAE's and DeiT's hold.
_SAFE = [
    argparse.Namespace, HistoryBuffer, multiarray._reconstruct, multiarray.scalar, np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_))
]
if tuple(int(part) for part in torch.__version__.split('.')[:2]) >= (2, 6):
    # older torch cannot name a stand-in
    _SAFE += [(_statistic, 'builtins.getattr'), (_joined, 'pathlib.PosixPath'),
              (_joined, 'pathlib.WindowsPath'), (_joined, 'pathlib._local.PosixPath')]
    _SAFE += [(_Values, name) for name in (
        'lightning.fabric.utilities.data.AttributeDict', 'yacs.config.CfgNode',
        'lightning_fabric.utilities.data.AttributeDict', 'easydict.EasyDict',
        'pytorch_lightning.utilities.parsing.AttributeDict')]
# What else holds weights, and what makes a file of it that can be read.
_ELSEWHERE = {
    **dict.fromkeys(('.h5', '.keras', '.msgpack', '.index'), 'write the arrays of Keras, flax or '
                    'TensorFlow with numpy.savez, in the names of vision_transformer'),
    '.onnx': 'ONNX has lost the names of the weights: find the file it was made from',
    '.gguf': 'find the file it was made from'}


def read_checkpoint(path: str | Path, trust: bool = False) -> dict[str, Any]:
    """Reads a file of weights onto the CPU.

    Args:
        path: ``.safetensors``, ``.npz``, or anything ``torch.save`` or ``torch.jit.save`` wrote.
        trust: whether a pickle may run the code it names. Only for files whose origin is known.

    Returns:
        What was saved: a state dict, or a dict that holds one.

    Raises:
        MilanError: if the file is missing, damaged, or needs code that was not opted in to.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise MilanError(f'no such file: {path}. Give the path of a checkpoint '
                         '(.pth, .pt or .safetensors)')
    if path.stat().st_size == 0:
        raise MilanError(f'{path} is empty: it was probably cut off while it was written')
    try:
        if path.suffix == '.safetensors':
            from safetensors.torch import load_file
            return load_file(str(path))
        if path.suffix == '.npz':
            return dict(read_npz(path))
        with open(path, 'rb') as file:
            start = file.read(1)
        if start == b'P':
            verify_archive(path)
        elif start != b'\x80':
            raise ValueError('it is neither a zip archive nor a pickle')
        if is_torchscript(path):
            return read_torchscript_state(path)
        with torch.serialization.safe_globals(_SAFE), _may_run_code(trust):
            loaded = torch.load(path, map_location='cpu', weights_only=not trust)
    except pickle.UnpicklingError as error:
        raise MilanError(_refusal(path, error)) from error
    except Exception as error:
        raise MilanError(f'{path} is not a readable checkpoint ({type(error).__name__}: '
                         f'{first_line(error)}). Expected safetensors or a file of torch.save; '
                         + _ELSEWHERE.get(path.suffix, 'was it copied to the end?')) from error
    if not isinstance(loaded, dict):
        raise MilanError(f'{path} holds a {type(loaded).__name__}, expected a dict of weights; '
                         'save model.state_dict(), not the model')
    return loaded


def verify_archive(path: str | Path) -> None:
    """Compares all that a zip archive holds with the checksums in it.

    Raises:
        ValueError: or another error of ``zipfile``, if it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names):
            raise ValueError('two of its entries have one name')
        damaged = archive.testzip()
    if damaged:
        raise ValueError(f'the checksum of its {damaged} does not hold')


def state_of(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict inside a checkpoint of mmengine, of the MAE family, or a bare one."""
    for key in ('state_dict', 'model'):
        if isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
            break
    return {
        name.removeprefix('module.'): value
        for name, value in checkpoint.items() if isinstance(name, str) and isinstance(value, Tensor)
    }


def in_float32(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with every floating tensor in single precision; others are left for a check."""
    return {key: value.float() if value.is_floating_point() else value
            for key, value in state.items()}


@contextlib.contextmanager
def _may_run_code(trust: bool) -> Iterator[None]:
    """Lifts what :mod:`milan_mm.compat.safe_load` sets for a file that was opted in to by name."""
    forced = os.environ.pop(FORCE_WEIGHTS_ONLY, None) if trust else None
    try:
        yield
    finally:
        if forced is not None:
            os.environ[FORCE_WEIGHTS_ONLY] = forced


def write_atomically(path: str | Path, write: Any) -> None:
    """Calls ``write(temporary_path)`` and renames, so that a file is whole or absent."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.stem}.{os.getpid()}{path.suffix}')
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # safetensors leaves a file that only its owner may read
        write(temporary)
        temporary.chmod(mode)
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Brings a file, or a folder's list of names, onto the disk."""
    with contextlib.suppress(PermissionError):  # of a folder, on Windows
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def first_line(error: BaseException) -> str:
    """The beginning of its message, for an error message of one line."""
    return (str(error).strip().splitlines() or ['no message'])[0][:200]


def _refusal(path: Path, error: Exception) -> str:
    named = re.search(r'GLOBAL ([\w.]+)', str(error))
    reason = f'it names {named.group(1)}' if named else first_line(error)[:120]
    return (f'{path} is refused: it is a pickle that needs more than tensors and plain values '
            f'({reason}), and loading it could run code. Get a safetensors file or a bare state '
            'dict, or, if you know where it comes from, pass --trust-checkpoint')


def last_checkpoint(run: Path) -> Path | None:
    """The ``epoch_N.pth`` or ``iter_N.pth`` of the largest N in a training's folder, or None."""
    return next(iter(_numbered(run)), None)


def run_checkpoints(run: Path) -> list[Path]:
    """The checkpoints that a stopped training may go on from, the newest first.

    Those in its folder; or in the one that its file ``last_checkpoint`` names, which may be empty
    or torn, or name a checkpoint that is not there.
    """
    pointer = run / 'last_checkpoint'
    named = pointer.read_bytes().decode(errors='replace').strip() if pointer.is_file() else ''
    try:
        path = Path(named)
        if named and path.exists() and path.parent.resolve() != run.resolve():
            return [path, *(p for p in _numbered(path.parent) if p != path)]
        found = _numbered(run)
        return found or ([path] if named and path.exists() else [])
    except (OSError, ValueError):  # of bytes that are no path
        return _numbered(run)


def is_whole(path: Path) -> bool:
    """Whether a checkpoint can be read back, as far as its checksums tell; folders are not read."""
    try:
        if not path.is_dir():
            verify_archive(path)
        return True
    except Exception:  # zipfile raises many kinds
        return False


def _numbered(folder: Path) -> list[Path]:
    found = [p for kind in ('epoch', 'iter') for p in folder.glob(f'{kind}_*.pth')
             if p.stem.split('_')[1].isdigit()]
    if len({path.stem.split('_')[0] for path in found}) > 1:  # a run that was stopped in an epoch
        return sorted(found, key=lambda p: p.stat().st_mtime_ns, reverse=True)
    return sorted(found, key=lambda p: int(p.stem.split('_')[1]), reverse=True)
