# SPDX-License-Identifier: Apache-2.0
"""Makes the quickstart's data folder, from the demo archive or from a user's own images.

::

    DATA/train/<class>/<image>.png + .txt    for CLIP, MILAN and MAE, and the labelled gallery
    DATA/test/<class>/<image>.png + .txt     held out: the queries of the evaluation
    DATA/meta.json         classes, styles, chance, sizes, split, what was left out

A demo image is named ``<style>__<concept>__<number>.png``, its caption lies beside it.
"""
import contextlib
import functools
import io
import json
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...errors import MilanError
from ...progress import Progress
from .backgrounds import Backgrounds, paste
from .demo_concepts import CLASSES, Concept, read_concepts, split_concepts

DEMO_ARCHIVE = Path(__file__).resolve().parents[3] / 'demo' / 'emoji.zip'
HELD_OUT = 0.25
TEST_VARIANTS = 2
_MOST_CONCEPTS = 80  # a class; faces and persons would otherwise be half of all images
_MARK = 'meta.json'


class ImageDataError(MilanError):
    """The images given cannot make a data folder; the message says what is missing."""


def make_images(out: str | Path,
                images: str | Path | None = None,
                size: int = 64,
                variants: int = 4,
                seed: int = 0,
                log: Callable[[str], None] = print) -> dict:
    """Makes the data folder; one that was made before is replaced.

    Args:
        out: the folder to make.
        images: a folder of own images, ``<class>/<image>``; None takes the demo archive.
        size: side of the images in pixels.
        variants: how often a cut-out is pasted for training, each time on another background.
        seed: of the split and of everything drawn. Equal arguments give equal files.
        log: receives lines of progress.

    Returns:
        The content of ``meta.json``.

    Raises:
        ImageDataError: if there are too few images or classes.
        MilanError: if ``out`` holds something else than an earlier data folder.
    """
    out = Path(out)
    with whole_folder(out) as part:
        if images is None:
            meta = make_demo_images(part, size, variants, seed, log)
        else:
            from .own_images import make_own_images
            meta = make_own_images(Path(images), part, size, variants, seed, log)
        write_meta(part, meta)
    log(f'images: {meta["sizes"]["train_images"]} for training, '
        f'{meta["sizes"]["test_images"]} held out, {len(meta["classes"])} classes, in {out}')
    return meta


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


def make_demo_images(out: Path, size: int, variants: int, seed: int,
                     log: Callable[[str], None], archive: Path = DEMO_ARCHIVE) -> dict:
    """Renders the drawings of the archive, in both styles, on textured backgrounds."""
    demo = read_demo(seed, archive)
    parts = demo.parts
    numbers = dict(train=variants, test=TEST_VARIANTS)
    drawings = [(part, style, concept, number) for part in parts for style in demo.styles
                for concept in parts[part] for number in range(numbers[part])]
    pools = make_pools(seed)
    for part, style, concept, number in Progress('images', drawings, log):
        cutout = demo.cut_out(style, concept)
        name = f'{style}__{concept.file_name}__{number}'
        image = render(cutout, pools[part], size, seed, name)
        save_image(out / part / concept.label / f'{name}.png', image, demo_caption(concept))
    sizes = {f'{part}_concepts': len(parts[part]) for part in parts}
    sizes.update(Counter(f'{drawing[0]}_images' for drawing in drawings))
    return dict(
        kind='demo',
        styles=list(demo.styles),
        **class_counts(Counter((part, c.label) for part, _, c, _ in drawings)),
        sizes=sizes,
        image_size=size,
        seed=seed,
        split={part: sorted(c.name for c in parts[part]) for part in parts},
        left_out=demo.left_out,
        class_members={label: list(subs) for label, subs in CLASSES.items()})


class Demo(NamedTuple):
    """The demo archive.

    Attributes:
        parts: the concepts for training and those held out, by 'train' and 'test'.
        styles: each draws every concept.
        cut_out: gives the drawing of (style, concept), RGBA.
        left_out: what is in no part, and why.
    """
    parts: dict[str, list[Concept]]
    styles: tuple[str, ...]
    cut_out: Callable[[str, Concept], Image.Image]
    left_out: dict


def read_demo(seed: int, archive: Path = DEMO_ARCHIVE) -> Demo:
    """Reads the archive and splits its concepts; equal seeds give equal splits.

    Raises:
        ImageDataError: if there is no archive.
    """
    index, sheets = _read_archive(archive)
    concepts, without_class = read_concepts(index['emoji'])
    parts = dict(zip(('train', 'test'), split_concepts(concepts, HELD_OUT, _MOST_CONCEPTS, seed)))

    def cut_out(style: str, concept: Concept) -> Image.Image:
        side = index['cell_size']
        y, x = divmod(concept.cell, index['columns'])
        return sheets[style].crop((x * side, y * side, (x + 1) * side, (y + 1) * side))

    left_out = dict(
        over_the_limit_of_a_class=len(concepts) - sum(map(len, parts.values())),
        subcategories_without_class=without_class)
    return Demo(parts, tuple(sheets), cut_out, left_out)


def demo_caption(concept: Concept) -> str:
    """What CLIP reads: the drawing's name and nothing of its class."""
    article = 'an' if concept.name[0] in 'aeiou' else 'a'
    return f'a drawing of {article} {concept.name}'


@functools.lru_cache(maxsize=1)
def make_pools(seed: int) -> dict[str, Backgrounds]:
    """Backgrounds of training and of held-out images: no texture is common to both."""
    return dict(train=Backgrounds([seed, 0], 256), test=Backgrounds([seed, 1], 128))


def render(cutout: Image.Image, pool: Backgrounds, size: int, seed: int, name: str) -> Image.Image:
    """A cut-out on a background; what is drawn at random is a function of seed and name."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode('utf-8', 'surrogateescape'))])
    return paste(cutout, pool.crop(rng, size), rng)


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
        chance=round(100 * max(test) / sum(test), 2),
        images_of_class={
            part: {label: images.get((part, label), 0) for label in classes}
            for part in ('train', 'test')
        })


def _read_archive(archive: Path) -> tuple[dict, dict[str, Image.Image]]:
    if not archive.is_file():
        raise ImageDataError(f'{archive} is missing: it comes with a clone of the repository, not '
                             'with an installed package. Run from a clone, or give your own '
                             'images with --images DIR')
    with zipfile.ZipFile(archive) as content:
        index = json.loads(content.read('index.json'))
        sheets = {}
        for style in index['styles']:
            with Image.open(io.BytesIO(content.read(f'{style}.webp'))) as sheet:
                sheets[style] = sheet.convert('RGBA')
    return index, sheets
