# SPDX-License-Identifier: Apache-2.0
"""Images in tar files, as WebDataset has them: few large files where millions of small ones hurt.

A shard is read by offset, not as a stream: a sample keeps its number whatever worker reads it, so
that keys, order and the place to resume from are those of a folder. A bucket is mounted, not piped.
"""
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from mmengine.logging import print_log

from ..errors import MilanError
from ..progress import Progress
from ..registry import DATA_SAMPLERS, DATASETS
from ..wording import printable
from .decoding import SUFFIXES
from .keyed_images import KeyedImages
from .sampler import EpochSampler, SampleIndex

_BLOCK = 512  # of tar: a member's header stands in the one before its content


@DATASETS.register_module()
class ImageShards(KeyedImages):
    """Every image in the tar files of a folder; see also :class:`KeyedImages`.

    Where an image begins and ends is read once from each shard and kept beside it, in
    ``<shard>.index.npy``, 16 bytes an image.

    Args:
        data_root: the folder of ``*.tar``, not compressed, or one such file.
        pipeline: transforms, the first of them :class:`LoadPILImage`.
        **kwargs: as of ``BaseDataset``.

    Attributes:
        counts: images in each shard.

    Raises:
        MilanError: if there is no shard, one cannot be read, or none holds an image.
    """

    def __init__(self, data_root: str | Path, pipeline: Sequence[dict | Callable] = (),
                 **kwargs: Any) -> None:
        super().__init__(data_root=str(data_root), pipeline=list(pipeline), **kwargs)

    def full_init(self) -> None:
        """Reads the indices, instead of a list that would not fit into memory."""
        if self._fully_initialized:
            return
        self.shards = find_shards(Path(self.data_root).expanduser())
        self.indices = [read_index(shard) for shard in Progress('index of shards', self.shards)]
        self.counts = [len(index) for index in self.indices]
        self.ends = np.cumsum(self.counts)
        if not self.ends[-1]:
            raise MilanError(f'no image in the {len(self.shards)} tar files of {self.data_root}: '
                             f'expected members that end in {", ".join(SUFFIXES)}')
        self._fully_initialized = True

    def __len__(self) -> int:
        return int(self.ends[-1])

    def get_data_info(self, idx: int) -> dict:
        number = int(np.searchsorted(self.ends, int(idx), side='right'))
        shard, index = self.shards[number], self.indices[number]
        start, size = map(int, index[int(idx) - int(self.ends[number])])
        member = os.pread(_opened(shard).fileno(), _BLOCK + size, start - _BLOCK)
        name = member[:100].split(b'\0')[0].decode('utf-8', 'surrogateescape')
        return dict(img_path=os.path.join(str(shard), name), img_bytes=member[_BLOCK:],
                    sample_idx=int(idx))


@DATA_SAMPLERS.register_module()
class ShardSampler(EpochSampler):
    """An order in which shards are read one after the other; see also :class:`EpochSampler`.

    Shards are put into an order drawn from (seed, epoch), and their images shuffled among the
    ``buffer`` that follow each other then. Only these are held in memory, and few files are open at
    a time. All processes together take every image once.

    Args:
        dataset: an :class:`ImageShards`.
        buffer: images that are shuffled among each other.
        **kwargs: as of ``DefaultSampler``.
    """

    def __init__(self, dataset: ImageShards, buffer: int = 10_000, **kwargs: Any) -> None:
        if buffer < 1:
            raise MilanError(f'ShardSampler: buffer must be at least 1, got {buffer}')
        super().__init__(dataset, **kwargs)
        self.buffer = buffer

    def __iter__(self) -> Iterator[SampleIndex]:
        first: list[int] = []  # with round_up they also fill the last turn of the processes
        position, short = 0, self.total_size - len(self.dataset)
        for block in self._blocks():
            first += block[:max(0, short - len(first))].tolist()
            for index in block[(self.rank - position) % self.world_size::self.world_size].tolist():
                yield SampleIndex(index, self.seed, self.epoch)
            position += len(block)
        if (missing := (self.rank - position) % self.world_size) < short:
            yield SampleIndex(first[missing % len(first)], self.seed, self.epoch)

    def _blocks(self) -> Iterator[np.ndarray]:
        """Numbers of images, a buffer at a time, the same for all processes."""
        drawn = np.random.default_rng((self.seed, self.epoch))
        counts = self.dataset.counts
        starts = np.cumsum([0, *counts])
        order = drawn.permutation(len(counts)) if self.shuffle else np.arange(len(counts))
        waiting: np.ndarray = np.empty(0, np.int64)
        for shard in order:
            waiting = np.concatenate([waiting, np.arange(starts[shard], starts[shard + 1])])
            while len(waiting) >= self.buffer:
                block, waiting = waiting[:self.buffer], waiting[self.buffer:]
                yield drawn.permutation(block) if self.shuffle else block
        if len(waiting):
            yield drawn.permutation(waiting) if self.shuffle else waiting


def find_shards(root: Path) -> list[Path]:
    """The tar files directly in a folder, or the one given; sorted.

    Raises:
        MilanError: if there is none.
    """
    shards = [root] if root.is_file() else sorted(root.glob('*.tar'))
    if not shards:
        raise MilanError(f'no shard in {printable(root)}: expected *.tar, as milan shard writes '
                         'them')
    return shards


def read_index(shard: Path) -> np.ndarray:
    """Where each image of a shard lies: (n, 2) int64, its offset and size in bytes.

    Read from the file beside it, or, where that is missing or older, from the shard, and kept.

    Raises:
        MilanError: if the shard is no whole, uncompressed tar file.
    """
    beside = shard.with_suffix('.index.npy')
    try:
        if beside.stat().st_mtime >= shard.stat().st_mtime:
            return np.load(beside, mmap_mode='r', allow_pickle=False)
    except (OSError, ValueError):
        pass  # made anew
    try:
        with tarfile.open(shard, 'r:') as tar:
            places = [(member.offset_data, member.size) for member in tar
                      if member.isfile() and is_image(member.name)]
            if places and sum(places[-1]) > shard.stat().st_size:
                raise tarfile.ReadError('it is cut short')
    except (OSError, tarfile.TarError) as error:
        raise MilanError(f'{printable(shard)} cannot be read as an uncompressed tar file: '
                         f'{error}') from error
    index = np.array(places, np.int64).reshape(-1, 2)
    temporary = beside.with_name(f'.{os.getpid()}.{beside.name}')
    try:
        np.save(temporary, index)
        os.replace(temporary, beside)
    except OSError as error:
        print_log(f'the index of {shard} is not kept: {error.strerror}', logger='current', level=30)
    return index


def is_image(name: str) -> bool:
    """Whether a member is a sample's image: WebDataset's suffix begins at the first dot."""
    folder, _, base = name.rpartition('/')
    return not base.startswith('.') and f'.{base.partition(".")[2].lower()}' in SUFFIXES


@lru_cache(maxsize=64)
def _opened(shard: Path) -> BinaryIO:
    """Processes that fork may share it: reading by offset moves no position."""
    return open(shard, 'rb', buffering=0)
