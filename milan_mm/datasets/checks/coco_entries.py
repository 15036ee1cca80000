# SPDX-License-Identifier: Apache-2.0
"""The entries of a COCO file, read one by one: each sound, put right, or left out.

What is known of an entry beyond the file stands in keys that begin with _ and are not written.
"""
import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from ...errors import MilanError
from ...wording import some_of
from . import image_files, outlines
from .facts import Facts, image_header
from .findings import Findings

_LISTED = 'is of {thing} {given}, which is not listed'


class Ids:
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


def read_categories(entries: list, source: Path, found: Findings) -> list[dict]:
    """Each category once, its name as text.

    Raises:
        MilanError: if an entry has no id or name, or two share one.
    """
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


def read_images(entries: list, folder: Path, facts: Facts, found: Findings) -> list[dict]:
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
            leave_out(same, 'several images of one id', found,
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
            leave_out([image], f'image that {_short(header["problem"])}', found)
            continue
        stated = outlines.numbers([image.get('width'), image.get('height')])
        image['_stated'] = [round(v) for v in stated] if stated and min(stated) > 0 else None
        if image['_stated'] is None:
            found.mended('size of an image missing, read from the file', image['file_name'])
        image['width'], image['height'] = header['size']
        image['_stored'] = header['stored']
        if header['hidden_turn']:
            found.note('image with an EXIF orientation: are its boxes those of the upright one?',
                       image['file_name'])
    return read


def read_annotations(entries: list, images: Ids, categories: Ids,
                     found: Findings) -> list[dict]:
    """Each annotation with a box, and with its image and category.

    Raises:
        MilanError: if the ids of categories are all off by one.
    """
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


def _find_images(images: list[dict], folder: Path, found: Findings) -> None:
    """Puts ``_path`` into each image, and the ``file_name`` that leads there."""
    there = [image for image in images if '_out' not in image]
    names = [image['file_name'] for image in there]
    for image, place in zip(there, image_files.find_files(names, folder)):
        if place is None:
            leave_out([image], f'image that is not in {folder}', found,
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


def _refuse_shift(unknown: list, entries: list, categories: Ids, found: Findings) -> None:
    """An annotation file that counts categories from 0, and a list that counts from 1."""
    listed = {c['id'] for c in categories.entries}
    given = [e.get('category_id') for e in entries if isinstance(e, dict)]
    used = {i for i in given if isinstance(i, int)}
    for shift in (1, -1):
        if unknown and used and len(used) > 1 and {i + shift for i in used} <= listed:
            raise MilanError(
                f'{found.source}: annotations are of the categories {some_of(sorted(used))}, and '
                f'those listed are {some_of(sorted(listed, key=str))}: one counts from 0, the '
                'other from 1. Give both the same ids')


def leave_out(images: list[dict], what: str, found: Findings, mend: str = '',
              item: str = '') -> None:
    """Leaves images out, for a reason and with its mend; ``item`` stands for the file's name."""
    for image in images:
        image['_out'] = what
        found.left_out(what, item or image['file_name'], mend)


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _short(problem: str) -> str:
    """Without what differs from file to file, so that like goes with like."""
    return problem.partition(':')[0]
