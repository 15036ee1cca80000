# SPDX-License-Identifier: Apache-2.0
"""Images and their label maps: sizes, values, and which classes occur."""
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import MilanError
from ...wording import some_of
from ..decoding import SUFFIXES
from ..finding import files_by_folder
from ..label_maps import IGNORED, find_pairs, read_label_map
from .facts import Facts, image_header
from .findings import LEFT_OUT, Findings

_MANY = 300  # different values that are remembered of a map


class CheckedMaps(NamedTuple):
    """What :func:`check_label_maps` gives.

    Attributes:
        pairs: [image, map] of those that can be used, relative to their folders.
        some_left_out: whether there are others.
        own_loader: whether :class:`LoadLabelMap` is needed to read them.
        findings: counts, and what was found.
    """
    pairs: list[list[str]]
    some_left_out: bool
    own_loader: bool
    findings: Findings


def check_label_maps(images: Path, maps: Path, classes: Sequence[str], facts: Facts,
                     img_suffix: str | None = None, map_suffix: str = '.png',
                     zero_is_none: bool = False, trained: bool = True) -> CheckedMaps:
    """Looks through the headers of images and all pixels of their label maps.

    Args:
        images, maps, img_suffix, map_suffix: as of :func:`find_pairs`.
        classes: value i is class i, or i + 1 with ``zero_is_none``; 255 is ignored.
        facts: of the files, remembered.
        zero_is_none: whether 0 is ignored.
        trained: whether this is the training set, in which more than one class has to occur.

    Raises:
        MilanError: if a map has a value that no class has, fewer than half of the images can be
            used, or all pixels are of one class.
    """
    found = Findings(images)
    pairs = find_pairs(images, maps, img_suffix, map_suffix)
    _note_others(images, maps, pairs, img_suffix, found)
    complete = []
    for image, labels in pairs:
        if labels is None:
            found.left_out(f'image without a label map in {maps}', image, 'A map has its image\'s '
                           f'name, ending in {map_suffix}')
        else:
            complete.append((image, labels))
    headers = facts.of([str(images / i) for i, _ in complete], image_header,
                       f'images of {images.name}')
    read = facts.of([str(maps / m) for _, m in complete], label_map_facts,
                    f'label maps of {maps.name}')
    good, values = [], []
    for pair, header, facts_of_map in zip(complete, list(headers), list(read)):
        if _fits(pair, header, facts_of_map, found):
            good.append(list(pair))
            values.append(dict(facts_of_map['values']))
    found.refuse_if_most('images', len(good), len(pairs))
    _refuse_strange([str(maps / m) for _, m in good], values, classes, int(zero_is_none))
    _count(good, values, classes, int(zero_is_none), trained, found)
    return CheckedMaps(good, found.any(LEFT_OUT), any(
        what in (_PLANES, _TURNED) for _, what in found.entries), found)


_PLANES = 'label map of equal planes, read as one'
_TURNED = 'label map that lies as its image does before the EXIF orientation, turned along'


def label_map_facts(path: str) -> dict:
    """Size, mode and [value, number of pixels] of a label map."""
    labels, mode = read_label_map(path)
    values, counts = np.unique(labels, return_counts=True)
    return dict(size=[labels.shape[1], labels.shape[0]], mode=mode, values=[
        [int(v), int(n)] for v, n in zip(values[-_MANY:], counts[-_MANY:])])


def _fits(pair: tuple[str, str], header: dict, labels: dict, found: Findings) -> bool:
    image, name = pair
    for path, facts, thing in ((image, header, 'image'), (name, labels, 'label map')):
        if 'problem' in facts:
            found.left_out(f'{thing} that cannot be used', f'{path} ({facts["problem"]})',
                           '' if thing == 'image' else 'A label map is an image file with the '
                           'number of a class in each pixel')
            return False
    if labels['size'] == header['size']:
        if header['hidden_turn']:
            found.note('image with an EXIF orientation: does its label map lie upright, too?',
                       image)
    elif labels['size'] == header['stored']:
        found.mended(_TURNED, name)
    else:
        size, of_map = ('{} x {}'.format(*facts['size']) for facts in (header, labels))
        found.left_out('label map of another size than its image',
                       f'{name} ({of_map}, image {size})', 'Label maps have a value for each '
                       'pixel of their image')
        return False
    if labels['mode'] in ('RGB', 'RGBA', 'LA', 'F'):
        found.mended(_PLANES, name)
    return True


def _note_others(images: Path, maps: Path, pairs: list, img_suffix: str | None,
                 found: Findings) -> None:
    """Files that are neither an image of the set nor a map of one."""
    used = {image for image, _ in pairs} | {labels for _, labels in pairs}
    for folder, thing in ((images, 'image'), (maps, 'label map')):
        for file in itertools.chain.from_iterable(files_by_folder(str(folder))):
            inside = os.path.relpath(file.path, folder)
            if inside in used or file.name in ('Thumbs.db', 'desktop.ini'):
                continue
            if file.name.lower().endswith(SUFFIXES):
                found.note('label map without an image' if thing == 'label map' else
                           f'image that does not end in {img_suffix}, not read', inside)
            elif thing == 'image':
                found.note('file of a kind that is not read as an image', inside)


def _refuse_strange(paths: list[str], values: list[dict], classes: Sequence[str],
                    shift: int) -> None:
    """In training a value of no class is an index error on a CPU and a dead device on CUDA."""
    highest = len(classes) - 1 + shift
    strange = [(path, [v for v in own if v != IGNORED and not 0 <= v <= highest])
               for path, own in zip(paths, values)]
    strange = [(path, own) for path, own in strange if own]
    if not strange:
        return
    path, own = strange[0]
    everything = {v for some in values for v in some if v != IGNORED}
    from_1 = not shift and min(everything) == 1 and max(everything) == len(classes)
    raise MilanError(
        f'{path} has the value {own[0]}, but there are {len(classes)} classes '
        f'({some_of(classes)}), values {shift} to {highest}; {IGNORED} is for pixels to be '
        f'ignored. {len(strange)} of {len(paths)} label maps have such values. ' + (
            'They count from 1: train with reduce_zero_label=True in the data sets'
            if from_1 else 'Mend the map or name the class in classes.txt'))


def _count(pairs: list, values: list[dict], classes: Sequence[str], shift: int, trained: bool,
           found: Findings) -> None:
    pixels = np.zeros(len(classes), np.int64)
    images = np.zeros(len(classes), np.int64)
    ignored = 0
    for (_, name), own in zip(pairs, values):
        for value, number in own.items():
            if value == IGNORED or value < shift:
                ignored += number
            else:
                pixels[value - shift] += number
                images[value - shift] += 1
        if not any(v != IGNORED and v >= shift for v in own):
            found.note('label map that holds nothing but ignored pixels', name)
    found.counts = dict(images=len(pairs), pixels=int(pixels.sum()), ignored=ignored)
    for i, name in enumerate(classes):
        found.classes[name] = dict(images=int(images[i]), pixels=int(pixels[i]))
        if not images[i]:
            found.note('class without a pixel', name)
    with_255 = sum(IGNORED in own for own in values)
    if trained and np.count_nonzero(images) < 2:
        only = [name for name, number in zip(classes, images) if number]
        absent = ', '.join(f'{i + shift} ({name})' for i, name in enumerate(classes)
                           if not images[i])
        words = (f'{with_255} of {len(values)} have 255, which is for pixels to be ignored, and '
                 f'no pixel has class {absent or "2"}: masks of 0 and 255? Write the number of '
                 'the class in place of 255' if with_255 else
                 'at least two classes have to occur; is classes.txt of these maps?')
        raise MilanError(f'{found.source}: all pixels of the label maps are of '
                         f'{f"one class, {only[0]}" if only else "no class"}: {words}')
