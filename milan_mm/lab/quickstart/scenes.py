# SPDX-License-Identifier: Apache-2.0
"""Scenes composed of cut-outs, for the quickstart's detection and segmentation.

Training scenes hold the concepts that MILAN was trained on, test scenes those held out. The
background is a class of its own and counts in the mIoU: ADE20K's habit of ignoring label 0 would
leave a segmentor unpunished for painting the background with things.
"""
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...progress import Progress
from ..steps import StepNotPossibleError
from .backgrounds import Backgrounds, place
from .data_folder import make_pools, whole_folder, write_meta
from .demo_images import read_demo
from .own_folder import read_own_images
from .own_scenes import own_ade, own_coco
from .scene_files import BACKGROUND, PARTS, Scene, SceneWriter

MIN_CUTOUTS = dict(train=3, test=1)
"""Cut-outs a class must have."""
_MOST_CLASSES = 254
_IMAGE_SIZE = 64  # of the quickstart's images: equal arguments give an equal split
OBJECTS = (1, 3)
# Longer side of an object, as a share of the scene's: objects as large as those the encoder was
# pretrained on. From .35 to .7, and up to four in a scene, MILAN's start was no better than a
# random one.
SCALE = (0.45, 0.85)
VISIBLE = 0.6  # share of an object that later ones must leave visible
_TRIES = 6  # places tried for an object
_NEEDED = ('boxes and masks of your own images (--coco JSON IMAGES) for the detection, label '
           'maps (--ade DIR) for the segmentation')


class NoScenesError(StepNotPossibleError):
    """These images make no scenes; the message says why and what would be needed."""


Cutouts = dict[str, list[Image.Image]]
"""Class -> RGBA images."""


def make_all_scenes(out: str | Path,
                    images: str | None,
                    coco: tuple[str, str] | None,
                    ade: str | None,
                    train: int,
                    test: int,
                    size: int = 64,
                    seed: int = 0,
                    log: Callable[[str], None] = print) -> dict:
    """Makes the folder of scenes: own annotated images, the rest composed of cut-outs.

    Args:
        out: the folder; one that was made before is replaced.
        images: the folder of own images that the quickstart was given, None for the demo's.
        coco: annotation file and folder of own images for the detection, or None.
        ade: own images and label maps in ADE20K's folders for the segmentation, or None.
        train, test: scenes to compose for training and for the test.
        size: side of a scene in pixels.
        seed: of the split and of all that is drawn.
        log: receives lines of progress.

    Returns:
        What ``meta.json`` holds: a block for each of ``coco`` and ``ade`` that could be made,
        ``seconds``, and under ``skipped`` why the other could not.

    Raises:
        NoScenesError: if neither could be made.
        MilanError: if own annotations are broken, or ``out`` is another folder.
    """
    start, out = time.time(), Path(out)
    meta: dict = dict(skipped={})
    with whole_folder(out) as part:
        if coco:
            meta['coco'] = own_coco(part / 'coco', *coco, train, test, seed, log)
        if ade:
            meta['ade'] = own_ade(part / 'ade', ade, train, test, seed, log)
        missing = [kind for kind in ('coco', 'ade') if kind not in meta]
        try:
            if missing:
                composed = make_scenes(part, images, train, test, size, seed, log, missing)
                meta.update({kind: composed for kind in missing})
                if 'ade' in missing:
                    meta['ade'] = dict(composed, classes=[BACKGROUND, *composed['classes']])
        except NoScenesError as reason:
            if len(missing) == 2:
                raise
            meta['skipped'] = {kind: str(reason) for kind in missing}
            log(f'no scenes for {missing[0]}: {reason}')
        meta['seconds'] = round(time.time() - start, 1)
        write_meta(part, meta)
    return meta


def make_scenes(out: Path,
                images: str | None,
                train: int,
                test: int,
                size: int = 64,
                seed: int = 0,
                log: Callable[[str], None] = print,
                kinds: Sequence[str] = ('coco', 'ade')) -> dict:
    """Composes scenes of cut-outs on textured backgrounds and writes them.

    Every object is drawn from a class drawn first, so classes are about equally frequent; it may
    be mirrored and turned a little. What hides too much of an earlier object is not placed.

    Args:
        kinds: 'coco', 'ade' or both; for the others see :func:`make_all_scenes`.

    Returns:
        ``classes``, ``scenes``, ``cutouts`` and ``objects`` (a class) of each part, ``image_size``
        and ``seed``.

    Raises:
        NoScenesError: if the images have no transparent parts, so that nothing can be cut out.
    """
    parts = _demo_cutouts() if images is None else _own_cutouts(Path(images), seed, log)
    classes = sorted(parts['train'])
    wanted = dict(train=train, test=test)
    pools = make_pools(seed)
    progress = Progress('scenes', train + test, log)
    objects: dict[str, Counter] = {}
    for number, part in enumerate(PARTS):
        writer = SceneWriter(out, part, classes, kinds)
        cutouts = [parts[part][name] for name in classes]
        for i in range(wanted[part]):
            rng = np.random.default_rng([seed, 4, number, i])
            writer.add(f'{i:05d}', compose(cutouts, pools[part], size, rng))
            progress.update()
        writer.finish()
        objects[part] = Counter(classes[a['category_id'] - 1] for a in writer.annotations)
    progress.close()
    log(f'scenes: {train} for training, {test} of held-out things, {len(classes)} classes')
    return dict(
        kind='composed', classes=classes, scenes=wanted, image_size=size, seed=seed,
        cutouts={part: sum(map(len, parts[part].values())) for part in PARTS},
        objects={part: dict(sorted(objects[part].items())) for part in PARTS})


def compose(cutouts: list[list[Image.Image]], pool: Backgrounds, size: int,
            rng: np.random.Generator) -> Scene:
    """One scene of one to three objects, fewer where there is no room for all to be seen.

    Args:
        cutouts: RGBA images of each class.
        pool: of backgrounds.
        size: side of the scene in pixels.
        rng: source of all that is drawn.
    """
    image = Image.fromarray(pool.crop(rng, size))
    owner: np.ndarray = np.zeros((size, size), np.uint8)
    whole, labels = [0], []  # pixels of each object, were it alone
    for _ in range(rng.integers(OBJECTS[0], OBJECTS[1] + 1)):
        label = int(rng.integers(len(cutouts)))
        cutout = cutouts[label][rng.integers(len(cutouts[label]))]
        if rng.random() < 0.5:
            cutout = cutout.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for _ in range(_TRIES):
            placed = place(cutout, size, rng, SCALE)
            covered = np.asarray(placed.getchannel('A')) >= 128
            changed = np.where(covered, len(whole), owner)
            pixels = [*whole, covered.sum()]
            seen = np.bincount(changed.ravel(), minlength=len(pixels))
            if all(seen[k] >= max(1, VISIBLE * pixels[k]) for k in range(1, len(pixels))):
                image.paste(placed, (0, 0), placed)
                owner, whole = changed.astype(np.uint8), pixels
                labels.append(label)
                break
    return Scene(np.asarray(image), owner, labels)


def _demo_cutouts() -> dict[str, Cutouts]:
    """The drawings of both styles; the split is that of the quickstart's images."""
    demo = read_demo()
    parts: dict[str, Cutouts] = {}
    for part, concepts in demo.parts.items():
        cutouts: Cutouts = {}
        for style in demo.styles:
            for concept in concepts:
                cutouts.setdefault(concept.label, []).append(demo.cut_out(style, concept))
        parts[part] = cutouts
    return parts


def _own_cutouts(source: Path, seed: int, log: Callable[[str], None]) -> dict[str, Cutouts]:
    """Those of a user's images that have alpha, of the classes that have enough of them."""
    split, _ = read_own_images(source, _IMAGE_SIZE, seed, log)
    parts: dict[str, Cutouts] = {}
    for part, images in split.items():
        cutouts = parts[part] = {}
        for image in images:
            if image.cutout and np.asarray(image.image.getchannel('A')).max() >= 128:
                cutouts.setdefault(image.label, []).append(image.image)
    labels = {image.label for images in split.values() for image in images}
    enough = {label for label in labels if all(
        len(parts[part].get(label, ())) >= least for part, least in MIN_CUTOUTS.items())}
    if not enough:
        total = sum(map(len, split.values()))
        found = sum(len(cutouts) for of in parts.values() for cutouts in of.values())
        raise NoScenesError(
            f'{found or "none"} of the {total} images in {source} have transparent parts '
            '(alpha), so no scenes can be composed of them. Needed are cut-outs, at least '
            f'{sum(MIN_CUTOUTS.values())} of a class, or {_NEEDED}')
    # A label map of 8 bits has no more; those with most cut-outs are kept.
    kept = sorted(enough, key=lambda label: (-len(parts['train'][label]), label))[:_MOST_CLASSES]
    return {part: {label: of[label] for label in kept} for part, of in parts.items()}
