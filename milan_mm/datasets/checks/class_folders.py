# SPDX-License-Identifier: Apache-2.0
"""Folders of images, one a class: how many of each, and which cannot be read."""
import os
from pathlib import Path

from ...errors import MilanError
from ..decoding import SUFFIXES
from ..image_folder import class_names, find_images
from .facts import Facts, image_header
from .findings import Findings


def check_class_folders(root: Path, facts: Facts, classes: tuple[str, ...] | None = None
                        ) -> Findings:
    """Counts the images of each class and reads their headers.

    An image that cannot be read is replaced by another in training, which goes on noting them.

    Args:
        root: with a folder a class.
        facts: of the images, remembered.
        classes: of the training set; None where this is it.

    Raises:
        MilanError: if there is one class only, or most images cannot be read.
    """
    found = Findings(root)
    paths = find_images(root)
    names = class_names(root)
    found.classes = {name: dict(images=0) for name in classes or names}
    folders = {e.name for e in root.iterdir() if e.is_dir() and not e.name.startswith('.')}
    for name in sorted(folders.difference(names)):
        found.note('folder without an image, no class', name)
    unread = 0
    for path, header in zip(paths, facts.of(paths, image_header, f'images of {root.name}')):
        inside = os.path.relpath(path, root)
        if 'problem' in header:
            unread += 1
            found.note('image that cannot be used: another one is trained on in its place',
                       f'{inside} ({header["problem"]})')
        elif (name := inside.split(os.sep)[0]) in found.classes:
            found.classes[name]['images'] += 1
    for folder, _, files in os.walk(root):
        for file in files:
            if not file.startswith('.') and not file.lower().endswith(SUFFIXES):
                found.note('file of a kind that is not read as an image',
                           os.path.relpath(os.path.join(folder, file), root))
    for name, numbers in found.classes.items():
        if not numbers['images']:
            found.note('class without an image that can be read', name)
    found.counts = dict(images=len(paths), classes=len(names))
    if classes is None and len(names) == 1:
        raise MilanError(f'{root} has one class only, {names[0]}: there is nothing to tell it '
                         f'from. Expected {root}/<class>/<image> with at least two classes')
    if unread == len(paths):
        raise MilanError(f'{root}: none of {len(paths)} images can be read, such as {paths[0]}')
    return found
