# SPDX-License-Identifier: Apache-2.0
"""A COCO file and its images: what can be trained on, and what was put right or left out."""
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import MilanError
from ...wording import some_of
from . import outlines
from .coco_entries import Ids, leave_out, read_annotations, read_categories, read_images
from .facts import Facts
from .findings import LEFT_OUT, MENDED, Findings
from .text import read_coco

_FEW = 0.1  # share of the images that may be left out because an outline is missing


class Checked(NamedTuple):
    """What :func:`check_coco` gives.

    Attributes:
        content: of a sound COCO file.
        changed: whether it differs from the file that was read.
        has_masks: whether each annotation has an outline; else none has.
        findings: counts, and what was found.
    """
    content: dict[str, Any]
    changed: bool
    has_masks: bool
    findings: Findings


def check_coco(source: Path, folder: Path, facts: Facts, with_masks: bool = True,
               least_side: int = 0, skip_empty: bool = False) -> Checked:
    """Looks through a COCO file and the header of each image.

    What can be put right without doubt is; what cannot is left out, counted and named.

    Args:
        source: the file.
        folder: that its file names are relative to.
        facts: of the images, remembered.
        with_masks: whether masks are wanted; without, outlines are neither needed nor kept.
        least_side: training passes over images with a shorter side, in pixels.
        skip_empty: training passes over images without annotation.

    Raises:
        MilanError: if the file is none of COCO's, or fewer than half of its images or annotations
            can be used, or what it means is in doubt.
    """
    content, encoding = read_coco(source)
    if not folder.is_dir():
        raise MilanError(f'no such folder: {folder}, for the images of {source}')
    found = Findings(source)
    if encoding != 'utf-8':
        found.mended(f'text in {encoding}', source.name)
    for part in ('images', 'annotations'):
        if not content[part]:
            raise MilanError(f'{source} has no {part[:-1]}: its list "{part}" is empty. Was it '
                             'exported with its labels?')
    categories = Ids('category', read_categories(content['categories'], source, found))
    images = Ids('image', read_images(content['images'], folder, facts, found))
    annotations = read_annotations(content['annotations'], images, categories, found)
    _set_right_corners(annotations, source, found)
    _settle_sizes(images.entries, annotations, found)
    annotations = [a for a in annotations if _box_is_sound(a, found)]
    kept = [image for image in images.entries if '_out' not in image]
    found.refuse_if_most('images', len(kept), len(content['images']))
    found.refuse_if_most('annotations', len(annotations), len(content['annotations']))
    for name in (name for image in images.entries for name in image.get('_gone', ())):
        found.left_out('annotation of an image that is left out', name)
    kept, annotations, has_masks = _settle_masks(kept, annotations, with_masks, source, found)
    _count(kept, annotations, categories.entries, found)
    _refuse_if_filtered(kept, annotations, least_side, skip_empty, found)
    clean = _number(kept, annotations, categories, found)
    return Checked(dict(content, **clean), found.any(MENDED, LEFT_OUT), has_masks, found)


def _set_right_corners(annotations: list[dict], source: Path, found: Findings) -> None:
    """Boxes [left, top, right, bottom]: mended where outlines prove it, else an error."""
    if not annotations:
        return
    readings = [outlines.reading_of(a['bbox'], a['_around']) for a in annotations]
    told = [reading for reading in readings if reading not in ('', 'both')]
    if told.count('corners') >= 0.9 * len(told) > 0:
        for a, reading in zip(annotations, readings):
            if reading in ('corners', ''):
                left, top, right, bottom = a['bbox']
                a['bbox'] = [left, top, right - left, bottom - top]
                found.mended('box that is [left, top, right, bottom], as its outline shows '
                             '(x1 y1 x2 y2), made [left, top, width, height]', a['_name'])
        return
    sizes = [(a['_image']['width'], a['_image']['height']) for a in annotations]
    leaving = [a for a, size in zip(annotations, sizes) if outlines.leaves(a['bbox'], size)]
    fitting = sum(outlines.fits_as_corners(a['bbox'], size)
                  for a, size in zip(annotations, sizes))
    if len(leaving) >= 0.1 * len(annotations) and fitting >= 0.99 * len(annotations):
        raise MilanError(
            f'{source}: {len(leaving)} of {len(annotations)} boxes leave their images '
            f'({some_of([a["_name"] for a in leaving], 3)}), and look like x1 y1 x2 y2. COCO\'s '
            'are [left, top, width, height] in pixels: write x2 - x1 and y2 - y1 for the last two')
    if all(0 <= v <= 1 for a in annotations for v in a['bbox']):
        raise MilanError(f'{source}: all boxes are within 0 and 1, such as '
                         f'{annotations[0]["bbox"]}: fractions of the image? COCO\'s are [left, '
                         'top, width, height] in pixels')


def _settle_sizes(images: list[dict], annotations: list[dict], found: Findings) -> None:
    """An image of another size than stated: are its boxes meant for the true one?"""
    boxes: dict[int, list] = {}
    for a in annotations:
        boxes.setdefault(id(a['_image']), []).append(a['bbox'])
    for image in images:
        stated, true = image.get('_stated'), [image['width'], image['height']]
        if '_out' in image or stated is None or stated == true:
            continue
        own = boxes.get(id(image), [])
        close = max(abs(s - t) for s, t in zip(stated, true)) <= outlines.TOLERANCE
        if close or not any(outlines.leaves(box, true) for box in own) and (
                not own or any(outlines.leaves(box, stated) for box in own)):
            found.mended('size of an image, by the file', image['file_name'])
            continue
        turned = image['_stored'] == stated
        leave_out([image], 'image of another size than stated' + (
            ', which is how it lies before its EXIF orientation is applied' if turned else ''),
            found, 'Remove the EXIF orientation from the files, or label them upright' if turned
            else 'Boxes are in pixels: are these the files that were labelled?',
            f'{image["file_name"]} ({true[0]} x {true[1]}, stated {stated[0]} x {stated[1]})')


def _box_is_sound(annotation: dict, found: Findings) -> bool:
    """What mmdet would pass over in training, and still count in an evaluation, is left out."""
    image, box, name = annotation['_image'], annotation['bbox'], annotation['_name']
    if '_out' in image:
        image.setdefault('_gone', []).append(name)
        return False
    x, y, w, h = box
    size = image['width'], image['height']
    if min(w, h) < 1:
        found.left_out('annotation whose box is narrower than a pixel', f'{name} {box}',
                       'Expected [left, top, width, height] in pixels')
        return False
    if min(x + w, size[0]) <= max(x, 0) or min(y + h, size[1]) <= max(y, 0):
        found.left_out('annotation whose box is outside of its image', f'{name} {box}',
                       'Expected [left, top, width, height] in pixels')
        return False
    if max(map(abs, box)) > outlines.FAR * max(size):
        found.left_out('annotation whose box is far larger than its image', f'{name} {box}',
                       'Expected [left, top, width, height] in pixels')
        return False
    if outlines.leaves(box, size):
        found.note('box that leaves its image', f'{name} {box}')
    around = annotation['_around']
    if around and not annotation['iscrowd'] and outlines.overlap(box, around) < 0.5:
        found.note('box that is not where its outline is', name)
    area = outlines.numbers([annotation.get('area')])
    if area is None or area[0] <= 0:
        annotation['area'] = outlines.area_of(annotation['_outline'], box)
        found.mended('"area" missing or not above 0, computed', name)
    else:
        annotation['area'] = area[0]
    return True


def _settle_masks(images: list[dict], annotations: list[dict], with_masks: bool, source: Path,
                  found: Findings) -> tuple[list[dict], list[dict], bool]:
    """Images, annotations, and whether all of these have a mask, or none."""
    lacking = [a for a in annotations if a['_outline'] is None]
    if not with_masks or len(lacking) == len(annotations):
        if with_masks:
            for a in lacking:
                found.note(f'{a["_problem"] or "no outline"}: boxes alone are trained', a['_name'])
        return images, annotations, False
    out = {id(a['_image']) for a in lacking}
    if len(out) > _FEW * len(images):
        reasons = sorted({a['_problem'] or 'no outline' for a in lacking})
        raise MilanError(
            f'{source}: {len(lacking)} of {len(annotations)} annotations have no sound outline '
            f'({some_of(reasons, 3)}): {some_of([a["_name"] for a in lacking])}. Draw them, or '
            'train boxes alone with --cfg-options model.roi_head.mask_head=None')
    for a in lacking:
        # The object would be background if its annotation alone were left out.
        if '_out' not in a['_image']:
            leave_out([a['_image']], 'image with an annotation without a sound outline', found,
                       'Draw them', f'{a["_image"]["file_name"]} ({a["_name"]})')
    return ([i for i in images if id(i) not in out],
            [a for a in annotations if id(a['_image']) not in out], True)


def _count(images: list[dict], annotations: list[dict], categories: list[dict],
           found: Findings) -> None:
    found.counts = dict(images=len(images), annotations=len(annotations))
    images_of: dict[str, list[int]] = {category['name']: [] for category in categories}
    for a in annotations:
        images_of[a['_category']['name']].append(id(a['_image']))
    for name, own in images_of.items():
        found.classes[name] = dict(annotations=len(own), images=len(set(own)))
        if not own:
            found.note('category without annotation', name)


def _refuse_if_filtered(images: list[dict], annotations: list[dict], least_side: int,
                        skip_empty: bool, found: Findings) -> None:
    """Names what the data set itself passes over in training."""
    small = [i for i in images if min(i['width'], i['height']) < least_side]
    drawn = {id(a['_image']) for a in annotations}
    empty = [i for i in images if skip_empty and id(i) not in drawn]
    for image in small:
        found.note(f'image with a side below {least_side} pixels, not trained on',
                   image['file_name'])
    for image in empty:
        found.note('image without annotation, not trained on', image['file_name'])
    if len({id(i) for i in (*small, *empty)}) == len(images):
        raise MilanError(
            f'{found.source}: no image is left to train on: of {len(images)}, {len(small)} have a '
            f'side below {least_side} pixels and {len(empty)} no annotation. Small ones are '
            'trained on with --cfg-options train_dataloader.dataset.filter_cfg.min_size=1')


def _number(images: list[dict], annotations: list[dict], categories: Ids,
            found: Findings) -> dict[str, list[dict]]:
    """The lists of a COCO file, ids renumbered where pycocotools would trip over them."""
    for thing, entries, users in (('image', images, 'image_id'),
                                  ('category', categories.entries, 'category_id')):
        if not _uniform(entry['id'] for entry in entries):
            new = {id(entry): number for number, entry in enumerate(entries, 1)}
            for entry in entries:
                found.mended(f'{thing} ids of several types, renumbered', entry['id'])
                entry['id'] = new[id(entry)]
            for a in annotations:
                a[users] = new[id(a[f'_{thing}'])]
    ids = [a.get('id') for a in annotations]
    # 0 is "no match" in COCO's evaluation, whose table of matches holds numbers only.
    if not all(type(i) is int and i > 0 for i in ids) or len(set(ids)) < len(ids):
        for number, a in enumerate(annotations, 1):
            found.mended('annotation ids missing, double, 0 or no numbers: renumbered', a['_name'])
            a['id'] = number
    for a in annotations:
        a.pop('segmentation', None)
        if a['_outline'] is not None:
            a['segmentation'] = a['_outline']
    return dict(images=_public(images), annotations=_public(annotations),
                categories=_public(categories.entries))


def _public(entries: Iterable[dict]) -> list[dict]:
    return [{k: v for k, v in entry.items() if not k.startswith('_')} for entry in entries]


def _uniform(ids: Iterable[Any]) -> bool:
    return len({type(i) for i in ids}) == 1
