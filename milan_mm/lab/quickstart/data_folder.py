# SPDX-License-Identifier: Apache-2.0
"""The quickstart's data folder, whatever its images were made from.

::

    DATA/train/<class>/<image>.png + .txt    for CLIP, MILAN and MAE, and the labelled gallery
    DATA/test/<class>/<image>.png + .txt     held out: the queries of the evaluation
    DATA/meta.json         classes, styles, chance, sizes, split, what was left out
"""
import contextlib
import functools
import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ...datasets.labelled import commonest_share
from ...errors import MilanError
from .backgrounds import SCALE, Backgrounds, paste

HELD_OUT = 0.25
TEST_VARIANTS = 2
_MARK = 'meta.json'


class ImageDataError(MilanError):
    """The images given cannot make a data folder; the message says what is missing."""


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Gives a folder to fill, which takes the place of ``out`` once it is complete.

    Raises:
        MilanError: if ``out`` holds something else than what was made here before.
    """
    if out.exists() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise MilanError(f'{out} exists and was not made by the quickstart (no {_MARK} in it); '
                         'move it away or give another folder')
    part = out.with_name(out.name + '.part')
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if out.exists():
        shutil.rmtree(out)
    part.rename(out)


def write_meta(folder: Path, meta: dict) -> None:
    """Writes ``meta.json``, by which a folder is known as the quickstart's."""
    text = json.dumps(meta, indent=1, ensure_ascii=False)
    (folder / _MARK).write_text(text, encoding='utf-8')


@functools.lru_cache(maxsize=1)
def make_pools(seed: int) -> dict[str, Backgrounds]:
    """Backgrounds of training and of held-out images: no texture is common to both."""
    return dict(train=Backgrounds([seed, 0], 256), test=Backgrounds([seed, 1], 128))


def render(cutout: Image.Image, pool: Backgrounds, size: int, seed: int, name: str,
           scale: tuple[float, float] = SCALE) -> Image.Image:
    """A cut-out on a background; what is drawn at random is a function of seed and name."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode('utf-8', 'surrogateescape'))])
    return paste(cutout, pool.crop(rng, size), rng, scale)


def save_image(path: Path, image: Image.Image, caption: str) -> None:
    """Writes an image and its caption beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.png':
        image.save(path, compress_level=1)
    else:
        image.save(path, quality=95, subsampling=0)
    path.with_suffix('.txt').write_text(caption + '\n', encoding='utf-8')


def class_counts(images: dict[tuple[str, str], int]) -> dict:
    """What ``meta.json`` says about the classes.

    Args:
        images: number of images of (part, class).

    Returns:
        ``classes``; ``chance``, the percentage of held-out images that naming always the same
        class gets right at best; ``images_of_class``.
    """
    classes = sorted({label for _, label in images})
    test = [images.get(('test', label), 0) for label in classes]
    return dict(
        classes=classes,
        chance=round(commonest_share(test), 2),
        images_of_class={
            part: {label: images.get((part, label), 0) for label in classes}
            for part in ('train', 'test')
        })
