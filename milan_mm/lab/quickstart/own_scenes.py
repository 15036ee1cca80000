# SPDX-License-Identifier: Apache-2.0
"""A user's own annotated images, laid out as the composed scenes are: checked, split, linked."""
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ...datasets.checks.coco import check_coco
from ...datasets.checks.facts import Facts
from ...datasets.checks.findings import LEFT_OUT
from ...datasets.checks.text import read_names
from ...datasets.decoding import opened
from ...datasets.image_folder import find_images
from ...errors import MilanError
from ...progress import Progress
from ...wording import some_of
from .data_folder import HELD_OUT
from .scene_files import BACKGROUND, PARTS, write_classes, write_coco

MIN_IMAGES = 8
IGNORED = 255
"""Label of pixels that belong to no class."""
T = TypeVar('T')


def own_coco(out: Path, annotation_file: str, images: str, train: int, test: int, seed: int,
             log: Callable[[str], None]) -> dict:
    """Splits a COCO file; the images stay where they are.

    Args:
        out: folder to make: ``annotations/{train,test}.json``, and ``train`` and ``test``, links
            to ``images``.
        annotation_file: with boxes and masks.
        images: the folder that its file names are relative to.
        train, test: so many images are taken at most, drawn at random; a quarter is held out.
        seed: of the draw.
        log: receives lines.

    Returns:
        The block for ``meta.json``.

    Raises:
        MilanError: if the file is no COCO file with masks, images are missing, or fewer than 8
            have an annotation.
    """
    source, folder = Path(annotation_file).expanduser(), Path(images).expanduser().resolve()
    content = _sound_coco(source, folder, log)
    categories = sorted(content['categories'], key=lambda c: c['id'])
    by_image: dict[Any, list[dict]] = {}
    for annotation in content['annotations']:
        by_image.setdefault(annotation['image_id'], []).append(annotation)
    used = [image for image in content['images']
            if any(not a['iscrowd'] for a in by_image.get(image['id'], ()))]
    parts = _split(used, train, test, seed, f'--coco {source}', 'images with annotations')
    (out / 'annotations').mkdir(parents=True)
    for part, chosen in parts.items():
        (out / part).symlink_to(folder, target_is_directory=True)
        annotations = [a for image in chosen for a in by_image[image['id']]]
        write_coco(out / f'annotations/{part}.json', chosen, annotations, categories)
    log(_summary('detection', parts, categories))
    return dict(kind='own', classes=[c['name'] for c in categories], seed=seed, source=str(source),
                scenes={part: len(chosen) for part, chosen in parts.items()})


def own_ade(out: Path, source: str, train: int, test: int, seed: int,
            log: Callable[[str], None]) -> dict:
    """Links images and label maps, split if they are not yet.

    Expected is ``images/training/X.jpg`` with ``annotations/training/X.png``, 8 bits, one label a
    pixel; ``validation`` beside ``training`` is taken if it is there, else a quarter is held out.
    Label 255 is ignored; 0 is a class like the others, usually the background. ``classes.txt``
    names the labels from 0 on, a line each.

    Args:
        out: folder to make, in the same layout.
        source: the folder.
        train, test: so many images are taken at most, drawn at random.
        seed: of the draw.
        log: receives lines.

    Returns:
        The block for ``meta.json``.

    Raises:
        MilanError: if a map is missing, no label map or of another size than its image, has a
            label without a name, or there are fewer than 8 images.
    """
    root = Path(source).expanduser().resolve()
    pairs = _pairs(root, 'training')
    parts = _split(pairs, train, test, seed, f'--ade {root}', 'images')
    if (root / 'images/validation').is_dir():
        held_out = _draw(_pairs(root, 'validation'), seed)[:test]
        parts = dict(train=_draw(pairs, seed)[:train], test=held_out)
    names = root / 'classes.txt'
    classes = read_names(names) if names.is_file() else []
    progress = Progress('label maps', sum(map(len, parts.values())), log)
    highest = 0
    for part, name in PARTS.items():
        for kind in ('images', 'annotations'):
            (out / kind / name).mkdir(parents=True)
        for number, (image, labels) in enumerate(parts[part]):
            highest = max(highest, _highest_label(image, labels, classes))
            # Named alike whatever they were: mmseg finds a map by the endings of both names.
            (out / f'images/{name}/{number:05d}.jpg').symlink_to(image)
            (out / f'annotations/{name}/{number:05d}.png').symlink_to(labels)
            progress.update()
    progress.close()
    classes = classes or [BACKGROUND, *(f'class {i}' for i in range(1, highest + 1))]
    if len(classes) < 2:
        raise MilanError(f'--ade: the label maps of {root} hold no label but 0; at least two '
                         'classes are needed')
    write_classes(out, classes)
    log(_summary('segmentation', parts, classes))
    return dict(kind='own', classes=classes, seed=seed, source=str(root),
                scenes={part: len(chosen) for part, chosen in parts.items()})


def _sound_coco(source: Path, folder: Path, log: Callable[[str], None]) -> dict:
    """The content of the file, put right where that can be done without doubt."""
    checked = check_coco(source, folder, Facts(log=log))
    for (kind, what), items in checked.findings.entries.items():
        if kind == LEFT_OUT:
            raise MilanError(f'--coco: {source}: {what}: {some_of(items, 3)}. Mend or remove them')
    if not checked.has_masks:
        raise MilanError(f'--coco: the annotations of {source} have no outlines: Mask R-CNN '
                         'learns masks too; expected "segmentation" with polygons or run lengths')
    return checked.content


def _pairs(root: Path, part: str) -> list[tuple[Path, Path]]:
    """Each image of a part with its label map."""
    folder, maps = root / 'images' / part, root / 'annotations' / part
    images = [Path(path) for path in find_images(folder)]
    pairs = [(p, (maps / p.relative_to(folder)).with_suffix('.png')) for p in images]
    missing = [str(labels) for _, labels in pairs if not labels.is_file()]
    if missing:
        raise MilanError(f'--ade: {len(missing)} of {len(pairs)} images in {folder} have no '
                         f'label map: {some_of(missing, 3)}')
    return pairs


def _highest_label(path: Path, labels: Path, classes: list[str]) -> int:
    """The highest label of a map, the ignored one left out."""
    with opened(path) as image:
        turned = image.getexif().get(0x0112, 1) >= 5  # by a quarter, when it is decoded
        size = image.size[::-1] if turned else image.size
    with opened(labels) as file:
        if file.mode not in ('L', 'P') or file.size != size:
            raise MilanError(
                f'--ade: {labels} is of mode {file.mode} and {file.size[0]} x {file.size[1]}; '
                f'expected the label of each pixel in 8 bits (mode L or P) and the size of '
                f'{path.name}, {size[0]} x {size[1]}')
        values = np.unique(np.asarray(file))
    highest = int(max((v for v in values if v != IGNORED), default=0))
    if classes and highest >= len(classes):
        raise MilanError(f'--ade: {labels} has the label {highest}, but classes.txt names only 0 '
                         f'to {len(classes) - 1}; {IGNORED} is for pixels to be ignored')
    return highest


def _split(items: list[T], train: int, test: int, seed: int, source: str,
           what: str) -> dict[str, list[T]]:
    if len(items) < MIN_IMAGES:
        raise MilanError(f'{source}: {len(items)} {what}, at least {MIN_IMAGES} are needed')
    items = _draw(items, seed)
    held_out = min(test, max(2, int(HELD_OUT * len(items))))
    return dict(train=items[held_out:][:train], test=items[:held_out])


def _draw(items: list[T], seed: int) -> list[T]:
    order = np.random.default_rng([seed, 5]).permutation(len(items))
    return [items[i] for i in order]


def _summary(task: str, parts: dict[str, list], classes: list) -> str:
    return (f'{task}: {len(parts["train"])} own images for training, {len(parts["test"])} held '
            f'out, {len(classes)} classes')
