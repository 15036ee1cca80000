# SPDX-License-Identifier: Apache-2.0
"""The quickstart's data folder from a user's own images: ``DIR/<class>/[folders/]<image>``."""
import hashlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ...datasets.decoding import UnreadableImageError, composite, open_image
from ...datasets.image_folder import find_images
from ...datasets.labelled import refuse_splits
from ...errors import MilanError
from ...progress import Progress
from ...structures import pair
from ...wording import some_of
from ..captions import caption_of
from .data_folder import (
    HELD_OUT,
    TEST_VARIANTS,
    ImageDataError,
    class_counts,
    make_pools,
    render,
    save_image,
)

MIN_CLASSES = 2
MIN_IMAGES = 4
"""Readable images a class must have: one is held out, three remain."""
MAX_IMAGES = 6000
"""More are not looked at: they would not be seen in the quickstart's few steps."""
_WANTED_RENDERS = 8000
_MARGIN = 1.15  # how much larger than the input an image is stored: room for crops


class Source(NamedTuple):
    """A readable image, made small.

    ``cutout``: it has alpha and goes on a background; ``captioned``: a text lies beside it.
    """
    label: str
    file_name: str
    caption: str
    image: Image.Image
    cutout: bool
    captioned: bool


def make_own_images(source: Path, out: Path, size: int, variants: int, seed: int,
                    log: Callable[[str], None]) -> dict:
    """Makes the data folder (without ``meta.json``) and returns what is to be written there.

    Images with transparent parts are cut out and pasted on textured backgrounds, ``variants``
    times. Others are stored once, with the shorter side at most 1.15 times ``size``.

    Raises:
        ImageDataError: if there are too few classes with enough readable images.
    """
    parts, left_out = read_own_images(source, size, seed, log)
    _report(left_out, log)
    if len(parts['test']) < 50:
        log(f'only {len(parts["test"])} images are held out: differences of less than '
            f'{200 / len(parts["test"]):.0f} points mean nothing; more images would help')
    cutouts = sum(image.cutout for images in parts.values() for image in images)
    variants = max(1, min(variants, _WANTED_RENDERS // max(1, cutouts)))
    written = _write(parts, out, size, dict(train=variants, test=min(variants, TEST_VARIANTS)),
                     seed, log)
    sizes = {f'{part}_files': len(parts[part]) for part in parts}
    sizes.update({f'{part}_images': sum(n for (p, _), n in written.items() if p == part)
                  for part in parts})
    sizes['captioned_files'] = sum(image.captioned for image in parts['train'])
    return dict(
        kind='own',
        styles=[],
        **class_counts(written),
        sizes=sizes,
        image_size=size,
        seed=seed,
        source=str(source),
        split={part: sorted(p.label + '/' + p.file_name for p in parts[part]) for part in parts},
        left_out=left_out)


def read_own_images(
        source: Path, size: int, seed: int,
        log: Callable[[str], None]) -> tuple[dict[str, list[Source]], dict[str, list]]:
    """Reads the images, made small, and splits them; equal arguments give equal splits.

    Returns:
        The images for training and those held out, by 'train' and 'test', and what was left out.

    Raises:
        ImageDataError: if there are too few classes with enough readable images.
    """
    paths, left_out = _choose(source, seed)
    images = _read(paths, source, size, left_out, log)
    counts = Counter(image.label for image in images)
    classes = {label for label, count in counts.items() if count >= MIN_IMAGES}
    if len(classes) < MIN_CLASSES:
        raise ImageDataError(_too_few(source, counts, left_out))
    left_out['classes_with_too_few_images'] = sorted(set(counts) - classes)
    return _split([image for image in images if image.label in classes], seed), left_out


def _choose(source: Path, seed: int) -> tuple[list[Path], dict[str, list]]:
    """The files to read, and what was left out already: loose files, and those above the limit."""
    try:
        found = [Path(path) for path in find_images(source)]
    except MilanError as error:
        raise ImageDataError(f'{error}. {_how_to_mend(source)}') from error
    loose = [path for path in found if path.parent == source]
    found = [path for path in found if path.parent != source]
    rng = np.random.default_rng([seed, 2])
    by_class: dict[str, list[Path]] = {}
    for i in rng.permutation(len(found)):
        by_class.setdefault(_label(found[i], source), []).append(found[i])
    refuse_splits(by_class, source)
    # Every class gets the same limit, as high as the total allows.
    limit = max(map(len, by_class.values()), default=0)
    while sum(min(limit, len(paths)) for paths in by_class.values()) > MAX_IMAGES and limit > 8:
        limit = max(8, limit * 9 // 10)
    chosen = sorted(path for paths in by_class.values() for path in paths[:limit])
    left_out: dict[str, Any] = dict(unreadable=[], empty=[], duplicates=[],
                    outside_class_folders=[_relative(path, source) for path in loose])
    return chosen, dict(left_out, over_the_limit=len(found) - len(chosen))


def _read(paths: list[Path], source: Path, size: int, left_out: dict[str, list],
          log: Callable[[str], None]) -> list[Source]:
    """Decodes the files and makes them small; what cannot be used is noted in ``left_out``."""
    images, seen, taken = list[Source](), set[bytes](), set[str]()
    for path in Progress('reading images', paths, log):
        try:
            image = open_image(path)
        except UnreadableImageError as error:
            left_out['unreadable'].append(str(error))
            continue
        image, cutout = _make_small(image, size)
        if image is None:
            left_out['empty'].append(_relative(path, source))
            continue
        label = _label(path, source)
        digest = hashlib.blake2b(image.tobytes() + f'{image.size}{label}'.encode(
            'utf-8', 'surrogateescape')).digest()
        if digest in seen:  # a copy could be held out while its original is trained on
            left_out['duplicates'].append(_relative(path, source))
            continue
        seen.add(digest)
        name = _free_name(path, source, taken)
        images.append(Source(label, name, caption_of(path, source), image, cutout,
                             path.with_suffix('.txt').is_file()))
    return images


def _make_small(image: Image.Image, size: int) -> tuple[Image.Image, bool]:
    """The image as small as it will be needed, and whether it is a cut-out; None if invisible."""
    if image.mode == 'RGBA':
        alpha = np.asarray(image.getchannel('A'))
        if alpha.max() < 8:
            return None, False
        if (alpha < 128).mean() >= 0.05:
            image = image.crop(image.getchannel('A').getbbox())
            image.thumbnail((2 * size, 2 * size), Image.Resampling.BICUBIC)
            return image, True
        image = composite(image)
    longest = 2 * min(image.size)  # of a panorama the middle is taken
    left, top = (max(0, side - longest) // 2 for side in image.size)
    image = image.crop((left, top, image.width - left, image.height - top))
    ratio = min(1.0, _MARGIN * size / min(image.size))
    if ratio < 1:
        shape = pair(max(1, round(side * ratio)) for side in image.size)
        image = image.resize(shape, Image.Resampling.BICUBIC)
    return image, False


def _free_name(path: Path, source: Path, taken: set[str]) -> str:
    """A name for the output that no other image of the class has.

    Sub-folders become part of it; the ending too where ``a.png`` and ``a.jpg`` stand side by side.
    """
    label, *parts = path.relative_to(source).with_suffix('').parts
    stem = '__'.join(parts).encode('utf-8', 'replace').decode()[:60].strip() or 'image'
    candidates = [stem, f'{stem}_{path.suffix[1:].lower()}']
    digest = hashlib.blake2b(os.fsencode(path.relative_to(source)), digest_size=6).hexdigest()
    for name in [*candidates, f'{stem[:40]}_{digest}']:
        if (label + '/' + name).casefold() not in taken:
            break
    taken.add((label + '/' + name).casefold())
    return name


def _split(images: list[Source], seed: int) -> dict[str, list[Source]]:
    """Draws the held-out images, class by class: at least one, at most a quarter."""
    parts: dict[str, list[Source]] = dict(train=[], test=[])
    for number, label in enumerate(sorted({image.label for image in images})):
        rng = np.random.default_rng([seed, 3, number])
        members = [image for image in images if image.label == label]
        members = [members[i] for i in rng.permutation(len(members))]
        held_out = max(1, int(HELD_OUT * len(members)))
        parts['test'] += members[:held_out]
        parts['train'] += members[held_out:]
    return parts


def _write(parts: dict[str, list[Source]], out: Path, size: int, variants: dict[str, int],
           seed: int, log: Callable[[str], None]) -> dict[tuple[str, str], int]:
    """Writes all images; returns how many of (part, class) there are."""
    pools = make_pools(seed)
    progress = Progress('writing images', sum(map(len, parts.values())), log)
    written: dict[tuple[str, str], int] = Counter()
    for part, images in parts.items():
        for image in images:
            folder = out / part / image.label
            progress.update()
            if not image.cutout:
                save_image(folder / f'{image.file_name}.jpg', image.image, image.caption)
                written[part, image.label] += 1
                continue
            for number in range(variants[part]):
                name = f'{image.file_name}__{number}'
                rendered = render(image.image, pools[part], size, seed, f'{image.label}/{name}')
                save_image(folder / f'{name}.png', rendered, image.caption)
                written[part, image.label] += 1
    return written


def _label(path: Path, source: Path) -> str:
    return path.relative_to(source).parts[0]


def _relative(path: Path, source: Path) -> str:
    return str(path.relative_to(source))


def _too_few(source: Path, counts: dict[str, int], left_out: dict[str, list]) -> str:
    found = ', '.join(f'{label}: {count}' for label, count in sorted(counts.items())[:10])
    enough = sum(count >= MIN_IMAGES for count in counts.values())
    message = (f'too few images in {source}: found {sum(counts.values())} readable images in '
               f'{len(counts)} class folders ({found or "none"}), {enough} of which have the '
               f'{MIN_IMAGES} images that a class needs; at least {MIN_CLASSES} such classes '
               f'are needed. {_how_to_mend(source)}')
    for what, text in (('unreadable', 'could not be decoded'),
                       ('outside_class_folders', 'lie outside any class folder'),
                       ('duplicates', 'are copies of others'), ('empty', 'are invisible')):
        if left_out[what]:
            message += f'. {len(left_out[what])} files {text}: {some_of(left_out[what], 3)}'
    return message


def _how_to_mend(source: Path) -> str:
    return (f'Put the images of each class into a folder of its own ({source}/<class>/<image>)'
            f', at least {MIN_IMAGES} images in each of at least {MIN_CLASSES} folders; '
            'a few dozen a class make the figures meaningful')


def _report(left_out: dict[str, list], log: Callable[[str], None]) -> None:
    texts = dict(
        unreadable='could not be decoded', empty='are invisible', duplicates='are copies of others',
        outside_class_folders='lie outside any class folder',
        classes_with_too_few_images=f'are classes of fewer than {MIN_IMAGES} images')
    for what, text in texts.items():
        if left_out[what]:
            log(f'left out, {len(left_out[what])} which {text}: {some_of(left_out[what])}')
    if left_out['over_the_limit']:
        log(f'left out, {left_out["over_the_limit"]} images above the limit of {MAX_IMAGES}: '
            'the quickstart would not come to see them')
