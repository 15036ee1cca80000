# SPDX-License-Identifier: Apache-2.0
"""The quickstart's data folder from the drawings of the demo archive.

A demo image is named ``<style>__<concept>__<number>.png``, its caption lies beside it.
"""
import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ...progress import Progress
from ...resources import RESOURCES
from .composition import Composition
from .data_folder import (
    HELD_OUT,
    TEST_VARIANTS,
    ImageDataError,
    class_counts,
    render,
    save_image,
)
from .demo_concepts import CLASSES, Concept, read_concepts, split_concepts

DEMO_ARCHIVE = RESOURCES / 'demo/emoji.zip'
_MOST_CONCEPTS = 80  # a class; faces and persons would otherwise be half of all images
# The held-out concepts are the same in every run, as a benchmark's validation set is: the teacher
# that comes with the package has not seen them either, and runs are compared image by image.
_SPLIT = 0


def make_demo_images(out: Path, size: int, variants: int, seed: int,
                     log: Callable[[str], None], archive: Path = DEMO_ARCHIVE,
                     composition: str = 'textured') -> dict:
    """Renders the drawings of the archive, in both styles, on textured backgrounds.

    Args:
        out, size, variants, seed, log: see :func:`~milan_mm.lab.quickstart.images.make_images`.
        archive: with the drawings.
        composition: see :class:`Composition`.
    """
    demo = read_demo(archive)
    parts = demo.parts
    numbers = dict(train=variants, test=TEST_VARIANTS)
    drawings = [(part, style, concept, number) for part in parts for style in demo.styles
                for concept in parts[part] for number in range(numbers[part])]
    how = Composition(composition, seed, list(CLASSES))
    for part, style, concept, number in Progress('images', drawings, log):
        cutout = demo.cut_out(style, concept)
        name = f'{style}__{concept.file_name}__{number}'
        image = render(cutout, how.pool(part, concept.label), size, seed, name, how.scale)
        save_image(out / part / concept.label / f'{name}.png', image, demo_caption(concept))
    sizes = {f'{part}_concepts': len(parts[part]) for part in parts}
    sizes.update(Counter(f'{drawing[0]}_images' for drawing in drawings))
    return dict(
        kind='demo',
        composition=composition,
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


def read_demo(archive: Path = DEMO_ARCHIVE) -> Demo:
    """Reads the archive and splits its concepts, always in the same way.

    Raises:
        ImageDataError: if there is no archive.
    """
    index, sheets = _read_archive(archive)
    concepts, without_class = read_concepts(index['emoji'])
    parts = dict(zip(('train', 'test'), split_concepts(concepts, HELD_OUT, _MOST_CONCEPTS, _SPLIT)))

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


def _read_archive(archive: Path) -> tuple[dict, dict[str, Image.Image]]:
    if not archive.is_file():
        raise ImageDataError(f'{archive} is missing: was the package installed whole? Or give your '
                             'own images with --data-root DIR')
    with zipfile.ZipFile(archive) as content:
        index = json.loads(content.read('index.json'))
        sheets = {}
        for style in index['styles']:
            file = io.BytesIO(content.read(f'{style}.webp'))
            with Image.open(file, formats=('WEBP', )) as sheet:
                sheets[style] = sheet.convert('RGBA')
    return index, sheets
