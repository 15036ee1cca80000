# SPDX-License-Identifier: Apache-2.0
"""A COCO file and its images: what can be trained on, and what was put right or left out."""
import os
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import MilanError
from ...wording import some_of
from . import image_files, outlines
from .facts import Facts, image_header
from .findings import LEFT_OUT, MENDED, Findings
from .text import read_coco

_FEW = 0.1  # share of the images that may be left out because an outline is missing
_LISTED = 'is of {thing} {given}, which is not listed'


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
    categories = _Ids('category', _read_categories(content['categories'], source, found))
    images = _Ids('image', _read_images(content['images'], folder, facts, found))
    annotations = _read_annotations(content['annotations'], images, categories, found)
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


class _Ids:
    """Entries by their id; '1' and 1 are the same where only one of them is there.

    Args:
        thing: they are, for messages.
        entries: each with ``id``.
    """

    def __init__(self, thing: str, entries: list[dict]) -> None:
        self.thing, self.entries = thing, entries
        self.exact = {entry['id']: entry for entry in entries}
        self.text: dict[str, list[dict]] = {}
        for entry in entries:
            self.text.setdefault(str(entry['id']), []).append(entry)

    def find(self, given: Any, found: Findings) -> dict | None:
        if isinstance(given, Hashable) and not isinstance(given, bool) and given in self.exact:
            return self.exact[given]
        alike = self.text.get(str(given), [])
        if len(alike) != 1 or given is None:
            return None
        found.mended(f'{self.thing} ids matched as text', f'{given!r} with {alike[0]["id"]!r}')
        return alike[0]


def _read_categories(entries: list, source: Path, found: Findings) -> list[dict]:
    read: dict[Any, dict] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not _is_id(entry.get('id')) or not str(
                entry.get('name') or '').strip():
            raise MilanError(f'{source} is no COCO file: an entry of "categories" is '
                             f'{str(entry)[:80]}; expected one with id, name')
        name = str(entry['name'])
        if name != entry['name']:
            found.mended('category name is no text', name)
        if entry['id'] in read:
            found.mended('category listed twice', name)
        known = read.setdefault(entry['id'], dict(entry, name=name))
        if known['name'] != name:
            raise MilanError(f'{source}: the categories {known["name"]} and {name} share the id '
                             f'{entry["id"]}. Give each its own')
    names = [entry['name'] for entry in read.values()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise MilanError(f'{source}: two categories are named {twice}, with the ids '
                         f'{", ".join(str(i) for i, c in read.items() if c["name"] == twice)}. '
                         'Make them one, or name them apart')
    return list(read.values())


def _read_images(entries: list, folder: Path, facts: Facts, found: Findings) -> list[dict]:
    """Each image with its true size; one that cannot be used has ``_out``."""
    read: list[dict] = []
    for entry in entries:
        if isinstance(entry, dict) and _is_id(entry.get('id')) and isinstance(
                entry.get('file_name'), str):
            read.append(dict(entry))
        else:
            found.left_out('image without "id" or "file_name"', str(entry)[:80])
    by_id: dict[Any, list[dict]] = {}
    for image in read:
        by_id.setdefault(image['id'], []).append(image)
    for same in by_id.values():
        if len({image['file_name'] for image in same}) > 1:
            _leave_out(same, 'several images of one id', found,
                       'Whose annotations are they? Give each image an id of its own')
        elif len(same) > 1:
            found.mended('image listed twice', same[0]['file_name'])
            for image in same[1:]:
                read.remove(image)
    _find_images(read, folder, found)
    there = [image for image in read if '_out' not in image]
    for image, header in zip(there, facts.of([i['_path'] for i in there], image_header,
                                             f'images of {folder.name}')):
        if 'problem' in header:
            _leave_out([image], f'image that {_short(header["problem"])}', found)
            continue
        stated = outlines.numbers([image.get('width'), image.get('height')])
        image['_stated'] = [round(v) for v in stated] if stated and min(stated) > 0 else None
        if image['_stated'] is None:
            found.mended('size of an image missing, read from the file', image['file_name'])
        image['width'], image['height'] = header['size']
        image['_header'] = header
    return read


def _find_images(images: list[dict], folder: Path, found: Findings) -> None:
    """Puts ``_path`` into each image, and the ``file_name`` that leads there."""
    there = [image for image in images if '_out' not in image]
    names = [image['file_name'] for image in there]
    for image, place in zip(there, image_files.find_files(names, folder)):
        if place is None:
            _leave_out([image], f'image that is not in {folder}', found,
                       'Give the folder that the file names are relative to')
            continue
        image['_path'], reading = place
        if reading:
            found.mended(reading, image['file_name'])
            inside = os.path.relpath(image['_path'], folder)
            image['file_name'] = inside if not inside.startswith('..') else os.path.abspath(
                image['_path'])
    by_path: dict[str, int] = {}
    for image in there:
        if path := image.get('_path'):
            by_path[path] = by_path.get(path, 0) + 1
    for path, times in by_path.items():
        if times > 1:
            found.note('image listed under several ids', path)


def _read_annotations(entries: list, images: _Ids, categories: _Ids,
                      found: Findings) -> list[dict]:
    read, unknown = [], []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            found.left_out('annotation that is no object', str(entry)[:80])
            continue
        name = f'annotation {entry.get("id", f"number {number}")}'
        image = images.find(entry.get('image_id'), found)
        category = categories.find(entry.get('category_id'), found)
        for given, thing in ((image, 'image'), (category, 'category')):
            if given is None:
                found.left_out('annotation that ' + _LISTED.format(
                    thing=thing, given=entry.get(f'{thing}_id')), name)
        if category is None:
            unknown.append(entry.get('category_id'))
        if image is None or category is None:
            continue
        if '_out' in image:
            image.setdefault('_gone', []).append(name)
            continue
        annotation = dict(entry, _name=name, _image=image, _category=category,
                          image_id=image['id'], category_id=category['id'])
        if _read_shape(annotation, found):
            _read_flags(annotation, found)
            read.append(annotation)
    _refuse_shift(unknown, entries, categories, found)
    return read


def _read_shape(annotation: dict, found: Findings) -> bool:
    """Sets box and outline right; False if there is no box."""
    name, image = annotation['_name'], annotation['_image']
    outline = outlines.read_outline(annotation.get('segmentation'),
                                    (image['width'], image['height']))
    if outline.mended:
        found.mended(outline.mended, name)
    around, given = outlines.extent(outline.value), annotation.get('bbox')
    annotation.update(_outline=outline.value, _around=around, _problem=outline.problem)
    box = outlines.numbers(given, 4)
    if box is None and given in (None, []) and around is not None:
        left, top, right, bottom = around
        box = [left, top, right - left, bottom - top]
        found.mended('box missing, taken from the outline', name)
    elif box is None:
        found.left_out(f'annotation with the box {str(given)[:60]}', name,
                       'Expected [left, top, width, height] in pixels')
        return False
    elif any(isinstance(v, str) for v in given or ()):
        found.mended('numbers written as text', name)
    annotation['bbox'] = box
    return True


def _read_flags(annotation: dict, found: Findings) -> None:
    crowd = annotation.get('iscrowd')
    if crowd not in (0, 1) or not isinstance(crowd, int):
        annotation['iscrowd'] = int(crowd == 1 or str(crowd).lower() in ('1', 'true'))
        found.mended('"iscrowd" missing or no number, taken as '
                     f'{annotation["iscrowd"]}', annotation['_name'])
    annotation['iscrowd'] = int(annotation['iscrowd'])


def _refuse_shift(unknown: list, entries: list, categories: _Ids, found: Findings) -> None:
    """An annotation file that counts categories from 0, and a list that counts from 1."""
    listed = {c['id'] for c in categories.entries}
    used = {e.get('category_id') for e in entries if isinstance(e, dict) and isinstance(
        e.get('category_id'), int)}
    for shift in (1, -1):
        if unknown and used and len(used) > 1 and {i + shift for i in used} <= listed:
            raise MilanError(
                f'{found.source}: annotations are of the categories {some_of(sorted(used))}, and '
                f'those listed are {some_of(sorted(listed, key=str))}: one counts from 0, the '
                'other from 1. Give both the same ids')


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
        turned = image['_header']['stored'] == stated
        _leave_out([image], 'image of another size than stated' + (
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
            _leave_out([a['_image']], 'image with an annotation without a sound outline', found,
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


def _number(images: list[dict], annotations: list[dict], categories: _Ids,
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


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _leave_out(images: list[dict], what: str, found: Findings, mend: str = '',
               item: str = '') -> None:
    for image in images:
        image['_out'] = what
        found.left_out(what, item or image['file_name'], mend)


def _short(problem: str) -> str:
    """Without what differs from file to file, so that like goes with like."""
    return problem.partition(':')[0]
