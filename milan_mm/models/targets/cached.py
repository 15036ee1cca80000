# SPDX-License-Identifier: Apache-2.0
"""A teacher that answers once for each view of an image, and is read from the disk from then on."""
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import MilanError
from ...registry import MODELS
from ...structures import TeacherOutput
from ...wording import some_of
from .base import TargetGenerator
from .ema import EMATargetGenerator

_MARK = b'MILN'  # in front of an entry; one that was never written has zeros there
_DTYPES = dict(float16=np.float16, float32=np.float32)


@MODELS.register_module()
class CachedTargetGenerator(TargetGenerator):
    """Another generator's features and importance, each computed once and kept in a file.

    For images of which there are a fixed number of views (``fixed_views`` of the data set). The
    run puts :class:`TargetCacheHook` among its hooks, which says before training what the file
    takes and tells, batch by batch, which views come; without it the teacher is asked every time.

    An entry carries a checksum of itself and of the pixels it was made of, so that a torn one, or
    one of other pixels, is computed anew. A batch that lacks an entry is computed as a whole, as
    it would be without any. What is computed is rounded to ``dtype`` like what is read: a resumed
    run meets the same numbers.

    Args:
        teacher: the generator, as a config or a module; not an average of the student.
        folder: for the files; None for ``targets`` in the work folder. Several processes, on
            several machines too, share it.
        dtype: of the features, 'float16' or 'float32'; the importance is always float32.

    Raises:
        MilanError: for another type, or a teacher that changes while training goes on.

    Attributes:
        asked: images whose targets were wanted since the start.
        computed: those that the teacher computed.
    """

    def __init__(self, teacher: dict | TargetGenerator, folder: str | Path | None = None,
                 dtype: str = 'float16') -> None:
        super().__init__()
        if dtype not in _DTYPES:
            raise MilanError(f'CachedTargetGenerator: dtype must be {" or ".join(_DTYPES)}, got '
                             f'{dtype!r}')
        self.settings = repr(teacher)
        self.teacher = teacher if isinstance(teacher, torch.nn.Module) else MODELS.build(teacher)
        if any(isinstance(part, EMATargetGenerator) for part in self.teacher.modules()):
            raise MilanError('CachedTargetGenerator keeps targets that stay the same, and an '
                             'EMATargetGenerator\'s change with the student: use it as it is')
        self.dim, self.in_channels = self.teacher.dim, self.teacher.in_channels
        self.measures_importance = self.teacher.measures_importance
        if hasattr(self.teacher, 'target_levels'):
            self.target_levels = self.teacher.target_levels
        self.folder, self.dtype = folder, np.dtype(_DTYPES[dtype])
        self.file: TargetFile | None = None
        self.views: list[tuple[int, int]] | None = None
        self.asked = self.computed = 0
        self.freeze()

    def match_student(self, grid_size: tuple[int, int], pixel_mean: Sequence[float] | None,
                      pixel_std: Sequence[float] | None) -> None:
        super().match_student(grid_size, pixel_mean, pixel_std)
        self.teacher.match_student(grid_size, pixel_mean, pixel_std)
        self.pixels = f'{pixel_mean} {pixel_std}'

    def identity(self) -> dict[str, str]:
        """What its targets depend on besides the pixels, for a file to be known by."""
        digest = hashlib.blake2b(self.settings.encode(), digest_size=16)
        for name, value in sorted(self.teacher.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return dict(teacher=digest.hexdigest(), pixels=self.pixels, patches=str(self.grid_size),
                    dtype=self.dtype.name)

    def expect(self, views: Sequence[int], pixels: Sequence[Tensor]) -> None:
        """Tells which images the next call is for.

        Args:
            views: number of each image's view, below the file's ``entries``.
            pixels: each image as the loader gave it, on the CPU.
        """
        self.views = [(int(view), zlib.crc32(image.numpy().tobytes()))
                      for view, image in zip(views, pixels)]

    def generate(self, images: Tensor) -> TeacherOutput:
        views, self.views = self.views, None
        self.asked += len(images)
        if self.file is None or views is None:  # nobody trains
            self.computed += len(images)
            return self.teacher.generate(images)
        found = [self.file.read(*view) for view in views]
        if all(entry is not None for entry in found):
            features, importance = (torch.from_numpy(np.stack(part)).to(images.device)
                                    for part in zip(*found))
            return TeacherOutput(features.float(), importance)
        self.computed += len(images)
        target = self.teacher.generate(images)
        with np.errstate(over='ignore'):  # said below
            features = target.features.float().cpu().numpy().astype(self.dtype)
        if not np.isfinite(features).all():
            raise MilanError(f'targets of {type(self.teacher).__name__} do not fit into '
                             f"{self.dtype.name}: give CachedTargetGenerator dtype='float32'")
        importance = target.importance.float().cpu().numpy()
        for view, entry, *parts in zip(views, found, features, importance):
            if entry is None:
                self.file.write(*view, *parts)
        return TeacherOutput(torch.from_numpy(features).float().to(images.device),
                             target.importance.float())


class TargetFile:
    """Entries of one size, found by their number; processes that write do not disturb each other.

    Args:
        folder: that it is in; made if it is not there.
        identity: what the targets depend on, by name; another one is another file.
        entries: how many there may be.
        shapes: of the features and of the importance of one image.
        dtype: of the features.

    Attributes:
        size: bytes of the whole file, when it is full.
        used: bytes that it takes on the disk now.
        news: a line that says what was found.

    Raises:
        MilanError: if what is missing does not find room on the disk.
    """

    def __init__(self, folder: Path, identity: dict[str, str], entries: int,
                 shapes: tuple[tuple[int, ...], tuple[int, ...]], dtype: np.dtype) -> None:
        self.shapes, self.dtype, self.entries = shapes, dtype, entries
        self.split = int(np.prod(shapes[0])) * dtype.itemsize
        self.entry = 8 + self.split + int(np.prod(shapes[1])) * 4
        self.size = entries * self.entry
        text = json.dumps(dict(identity, entries=str(entries)), indent=1)
        path = folder / f'{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}.targets'
        try:
            folder.mkdir(parents=True, exist_ok=True)
            others = [other for other in sorted(folder.glob('*.json'))
                      if other != path.with_suffix('.json')]
            self.used = path.stat().st_blocks * 512 if path.exists() else 0
            free = shutil.disk_usage(folder).free
            self.news = (f'targets in {path}: {entries:,} of {self.entry / 2**10:,.0f} KiB, '
                         f'{self.size / 2**30:.2f} GiB when all are there, '
                         f'{self.used / 2**30:.2f} GiB now, {free / 2**30:.1f} GiB free'
                         + ('' if path.exists() else _differs(others, json.loads(text))))
            if self.size - self.used > free:
                raise MilanError(
                    f'the targets of {entries:,} views take {(self.size - self.used) / 2**30:.2f} '
                    f'GiB more, and {folder} has {free / 2**30:.2f} GiB free: give '
                    'CachedTargetGenerator another folder, or leave it out')
            self.number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            if os.fstat(self.number).st_size != self.size:
                os.ftruncate(self.number, self.size)  # holes, which take no room
            path.with_suffix('.json').write_text(text)
        except OSError as error:
            raise MilanError(f'targets cannot be kept in {folder}: {error.strerror}') from error

    def read(self, view: int, pixels: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Features and importance; None if there are none, or torn ones, or of other pixels."""
        content = os.pread(self.number, self.entry, view * self.entry)
        if content[:4] != _MARK or len(content) < self.entry:
            return None
        body = memoryview(content)[8:]
        if int.from_bytes(content[4:8], 'little') != zlib.crc32(body, pixels):
            return None
        return (np.frombuffer(body[:self.split], self.dtype).reshape(self.shapes[0]),
                np.frombuffer(body[self.split:], np.float32).reshape(self.shapes[1]))

    def write(self, view: int, pixels: int, features: np.ndarray, importance: np.ndarray) -> None:
        body = features.tobytes() + importance.tobytes()
        content = _MARK + zlib.crc32(body, pixels).to_bytes(4, 'little') + body
        try:
            written = os.pwrite(self.number, content, view * self.entry)
        except OSError as error:
            raise MilanError(f'targets cannot be written: {error.strerror}; make room, or leave '
                             'CachedTargetGenerator out') from error
        if written < len(content):
            raise MilanError('targets cannot be written: the disk is full; make room, or leave '
                             'CachedTargetGenerator out')

    def __deepcopy__(self, memo: dict) -> 'TargetFile':
        return self  # of a model whose weights are averaged; the file is one

    def __del__(self) -> None:
        if hasattr(self, 'number'):
            os.close(self.number)


def _differs(others: Sequence[Path], identity: dict[str, str]) -> str:
    """Why none of the files that are there will do; nothing if there are none."""
    reasons = []
    for other in others:
        try:
            known: Any = json.loads(other.read_text())
            reasons.append([key for key in identity if known.get(key) != identity[key]])
        except (OSError, ValueError, AttributeError):
            continue
    if not reasons:
        return ''
    nearest = min(reasons, key=len)
    return (f'; a new file, as the {len(reasons)} there differ in {some_of(nearest)}: remove what '
            'is of no more use')
