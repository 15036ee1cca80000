# SPDX-License-Identifier: Apache-2.0
"""From a source of images to shards; what :mod:`shards` and the webdataset library read."""
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..errors import MilanError, UnreadableImageError
from ..progress import Progress
from .decoding import SUFFIXES, composite, open_image
from .keyed_images import KeyedImages
from .shards import read_index


class Sharded(NamedTuple):
    """What was written.

    Attributes:
        shards: number of tar files.
        images: number of images in them.
        unreadable: paths of those left out.
    """
    shards: int
    images: int
    unreadable: list[str]


def write_shards(images: KeyedImages, out: str | Path, per_shard: int = 10_000,
                 short_side: int | None = None, seed: int = 0,
                 log: Callable[[str], None] | None = None) -> Sharded:
    """Writes images into ``out/000000.tar`` and so on, each with its index.

    In an order drawn once, so that what lies together in a shard is not alike. A shard is whole or
    absent. Files are copied as they are; those that cannot be decoded are left out.

    Args:
        images: the source.
        out: a new or empty folder.
        per_shard: images in a shard.
        short_side: an image whose shorter side is longer is made that small, and becomes a JPEG
            of quality 95; None for no change.
        seed: of the order.
        log: receives lines of progress; by default they go to stderr.

    Raises:
        MilanError: if there is something in ``out`` already, or no image can be decoded.
    """
    folder = Path(out).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MilanError(f'{out} is there already and not an empty folder; give another one')
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(seed).permutation(len(images))
    progress, written, unreadable, shards = Progress('shards', len(images), log), 0, [], 0
    for begin in range(0, len(order), per_shard):
        shard = folder / f'{shards:06d}.tar'
        temporary = shard.with_suffix('.part')
        before = written
        with tarfile.open(temporary, 'w') as tar:
            for index in order[begin:begin + per_shard]:
                info = images.get_data_info(int(index))
                try:
                    content, suffix = _content(info, short_side)
                except UnreadableImageError:
                    unreadable.append(info['img_path'])
                else:
                    member = tarfile.TarInfo(f'{written:09d}{suffix}')
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
                    written += 1
                progress.update(1)
        if written > before:
            os.replace(temporary, shard)
            read_index(shard)
            shards += 1
        else:
            temporary.unlink()
    progress.close()
    if not written:
        raise MilanError(f'none of the {len(images)} images can be decoded, such as '
                         f'{unreadable[0]}')
    return Sharded(shards, written, unreadable)


def _content(info: dict, short_side: int | None) -> tuple[bytes, str]:
    """What the file holds, decoded once to see that it can be, and the suffix of its kind."""
    path, content = info['img_path'], info.get('img_bytes')
    image = open_image(path, content=content)
    if short_side and min(image.size) > short_side:
        scale = short_side / min(image.size)
        small = composite(image).resize(
            (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        small.save(file, 'JPEG', quality=95)
        return file.getvalue(), '.jpg'
    content = Path(path).read_bytes() if content is None else content
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        suffix = '.jpg' if content.startswith(b'\xff\xd8') else '.png'
    return content, suffix
