# SPDX-License-Identifier: Apache-2.0
"""Features of a folder into one file, whatever their size.

Rows go to a temporary file beside the target as they come; at the end they are put together as
``.npz`` or ``.safetensors``, which are written here because the libraries would want all rows in
memory at once. The file appears whole or not at all.
"""
import contextlib
import io
import json
import os
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from ..checkpoints.io import write_atomically
from ..datasets.stream import ImageStream
from ..errors import MilanError
from ..inference.encoders import Extractor
from .features import evaluation_mode, image_folder

KINDS = ('cls', 'pooled', 'patches')
DTYPES = {'float16': np.float16, 'float32': np.float32}
SUFFIXES = ('.npz', '.safetensors')
_COPY = 1 << 24
_SAFETENSORS_HEADER_LIMIT = 90_000_000  # the format's own is 100 MB


def extract_features(extractor: Extractor,
                     data: str | Path,
                     out: str | Path,
                     kinds: Sequence[str] = ('cls', ),
                     dtype: str = 'float32',
                     batch_size: int = 64,
                     workers: int = 2,
                     progress: bool = True) -> dict[str, Any]:
    """Writes the features of every image below a folder.

    The file holds ``cls`` (n, D), ``pooled`` (n, D), ``patches`` (n, N, D; raster order), those
    that were asked for, and the grid (rows, columns). The n paths, relative to ``data``, are in
    ``.npz`` the array ``paths``; in ``.safetensors`` the metadata ``paths``, as a JSON list.
    Memory is a batch; the disk must hold the features twice while they are put together.

    Args:
        extractor: on the device to compute on.
        data: the folder; sub-folders are gone into, labels are not needed.
        out: ``.npz`` or ``.safetensors``.
        kinds: any of :data:`KINDS`.
        dtype: 'float32' or 'float16'.
        batch_size, workers, progress: see :func:`milan_mm.evaluation.features.collect_features`.

    Returns:
        ``count``, ``shapes``, ``unreadable``.

    Raises:
        MilanError: if an argument is none of these, or a feature does not fit ``dtype``.
    """
    out, kinds = Path(out), tuple(dict.fromkeys(kinds))
    if out.suffix not in SUFFIXES:
        raise MilanError(f'--out must end in .npz or .safetensors, got {out}')
    if not kinds or set(kinds) - set(KINDS) or dtype not in DTYPES:
        raise MilanError(f'kinds must be of {KINDS} and dtype of {tuple(DTYPES)}, got {kinds} and '
                         f'{dtype!r}')
    folder = image_folder(extractor, data, with_label=False)
    names = [os.path.relpath(folder.path(i), Path(data).expanduser())
             for i in range(len(folder))]
    header_size = len(json.dumps(json.dumps(names)))
    if out.suffix == '.safetensors' and header_size > _SAFETENSORS_HEADER_LIMIT:
        raise MilanError(f'{len(names)} paths are too long for the header of a safetensors file; '
                         'use .npz')
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{out.stem}.', dir=out.parent) as scratch, \
            contextlib.ExitStack() as stack:
        files = {kind: stack.enter_context(open(Path(scratch) / kind, 'wb+')) for kind in kinds}
        rows = _Rows(files, DTYPES[dtype])
        stream = ImageStream(folder, batch_size, workers, title='features' if progress else None)
        with evaluation_mode(extractor), torch.no_grad():
            for numbers, pixels in stream:
                rows.append([names[i] for i in numbers], extractor(extractor.normalise(pixels)))
        write = _write_npz if out.suffix == '.npz' else _write_safetensors
        write_atomically(out, lambda path: write(path, rows))
    return {'count': len(rows.names), 'shapes': {k: list(rows.shape(k)) for k in kinds},
            'unreadable': stream.unreadable}


class _Rows:
    """Rows on disk, and what must be known to read them."""

    def __init__(self, files: Mapping[str, IO[bytes]], dtype: type) -> None:
        self.files, self.dtype = files, np.dtype(dtype)
        self.names: list[str] = []
        self.row_shape: dict[str, tuple[int, ...]] = {}
        self.grid = (0, 0)

    def append(self, names: list[str], features: Any) -> None:
        self.names += names
        self.grid = features.grid
        for kind, file in self.files.items():
            block = getattr(features, kind).float().cpu()
            values = block.numpy().astype(self.dtype)
            if not np.isfinite(values).all():
                why = ('the weights are damaged' if not torch.isfinite(block).all() else
                       'it does not fit float16; use --dtype float32')
                raise MilanError(f'a {kind} feature of {names[0]} or the next {len(names) - 1} is '
                                 f'not finite: {why}')
            self.row_shape[kind] = values.shape[1:]
            file.write(values.tobytes())

    def shape(self, kind: str) -> tuple[int, ...]:
        return (len(self.names), *self.row_shape[kind])

    def copy_to(self, kind: str, target: IO[bytes]) -> None:
        self.files[kind].seek(0)
        shutil.copyfileobj(self.files[kind], target, _COPY)


def _write_npz(path: Path, rows: _Rows) -> None:
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
        for kind in rows.files:
            with archive.open(f'{kind}.npy', 'w', force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, {
                    'descr': np.lib.format.dtype_to_descr(rows.dtype), 'fortran_order': False,
                    'shape': rows.shape(kind)})
                rows.copy_to(kind, member)
        for name, array in (('paths', np.array(rows.names)), ('grid', np.array(rows.grid))):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            archive.writestr(f'{name}.npy', buffer.getvalue())


def _write_safetensors(path: Path, rows: _Rows) -> None:
    """The format: length of the header, the header as JSON, the tensors one after another."""
    header: dict[str, Any] = {'__metadata__': {
        'paths': json.dumps(rows.names), 'grid': json.dumps(rows.grid)}}
    end = 0
    for kind in rows.files:
        shape = rows.shape(kind)
        start, end = end, end + int(np.prod(shape)) * rows.dtype.itemsize
        header[kind] = {'dtype': {2: 'F16', 4: 'F32'}[rows.dtype.itemsize], 'shape': shape,
                        'data_offsets': [start, end]}
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as file:
        file.write(struct.pack('<Q', len(text)) + text)
        for kind in rows.files:
            rows.copy_to(kind, file)
