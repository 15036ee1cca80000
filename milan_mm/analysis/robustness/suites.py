# SPDX-License-Identifier: Apache-2.0
"""From a suite's folder to the images to classify, with the output that each should win."""
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log

from ...datasets.image_folder import find_images
from ...errors import MilanError
from ...wording import some_of
from .corruptions import CORRUPTIONS, SEVERITIES
from .imagenet import imagenet_classes

SUITES = ('imagenet-a', 'imagenet-r', 'imagenet-sketch', 'imagenet-c', 'corruptions')
CLEAN = ('clean', 0)
Condition = tuple[str, int]  # corruption and severity


class Case(NamedTuple):
    """Where it is, its path below the suite's folder (which keys what is drawn), and its output."""
    path: str
    name: str
    label: int


class Pass(NamedTuple):
    """Images that are read once.

    Attributes:
        title: for the progress.
        images: in the order of their paths.
        conditions: what each is measured in.
        apply: whether the corruption is made here; else the files have it already.
        left_out: images of classes that the classifier does not know.
    """
    title: str
    images: list[Case]
    conditions: tuple[Condition, ...]
    apply: bool
    left_out: int


def plan(suite: str,
         data: str | Path,
         known: dict[str, int],
         clean: str | Path | None = None,
         corruptions: Sequence[str] = CORRUPTIONS,
         severities: Sequence[int] = SEVERITIES) -> list[Pass]:
    """The passes that measure a suite.

    Args:
        suite: one of :data:`SUITES`.
        data: its folder. ``<class>/<image>``; of ImageNet-C
            ``[<group>/]<corruption>/<severity>/<class>/<image>``. A single folder around that,
            as archives have it, is stepped into.
        known: the classifier's output of each class, by the name of its folder.
        clean: images without corruption of the same classes, such as ImageNet's validation set;
            of a suite of 200 classes only theirs are read. For 'corruptions' ``data`` is that.
        corruptions: which of the 15.
        severities: for suite 'corruptions'; ImageNet-C is always measured at all five.

    Raises:
        MilanError: if a folder is not laid out so.
    """
    data = existing(data)
    if suite == 'corruptions':
        conditions = (CLEAN, *((c, s) for c in corruptions for s in severities))
        return [read_folder(data, 'images', known, None, conditions, True)]
    of_suite = imagenet_classes(suite)
    passes = []
    if clean is not None:
        root = step_into(existing(clean), set(imagenet_classes()))
        passes.append(read_folder(root, 'clean', known, of_suite, (CLEAN, ), False, others=True))
    if suite != 'imagenet-c':
        root = step_into(data, set(of_suite))
        return [*passes, read_folder(root, suite, known, of_suite, ((suite, 0), ), False)]
    for (name, severity), folder in corruption_folders(data, corruptions).items():
        passes.append(read_folder(folder, f'{name} {severity}', known, of_suite,
                                  ((name, severity), ), False))
    return passes


def read_folder(root: Path, title: str, known: dict[str, int], allowed: Sequence[str] | None,
                conditions: tuple[Condition, ...], apply: bool, others: bool = False) -> Pass:
    """The images of ``root/<class>/``.

    Args:
        allowed: classes of the suite, of which a classifier may not know all; None for a folder of
            which it must know every class.
        others: whether folders beside ``allowed`` are passed over; else they are an error.
    """
    images, left_out, classes = [], 0, set()
    for path in find_images(root):
        name = Path(os.path.relpath(path, root))
        folder = name.parts[0] if len(name.parts) > 1 else None
        if folder not in known and (allowed is None or folder not in allowed):
            if others and folder is not None:
                continue
            raise MilanError(_strange(root, path, folder, known, allowed))
        if folder in known:
            images.append(Case(path, name.as_posix(), known[folder]))
            classes.add(folder)
        else:
            left_out += 1
    if not images:
        raise MilanError(f'{root} has no image of a class that the classifier knows')
    if len(classes) < len(known):
        print_log(f'{len(known) - len(classes)} of {len(known)} classes have no image in {root}',
                  logger='current', level=30)
    return Pass(title, images, conditions, apply, left_out)


def corruption_folders(data: Path, corruptions: Sequence[str]) -> dict[Condition, Path]:
    """``[<group>/]<corruption>/<severity>`` of each asked for, all five severities.

    Raises:
        MilanError: naming the first that is missing.
    """
    found = {}
    for name in corruptions:
        places = [data / name, *sorted(data.glob(f'*/{name}')), *sorted(data.glob(f'*/*/{name}'))]
        place = next((p for p in places if p.is_dir()), None)
        if place is None:
            there = [c for c in CORRUPTIONS if any(True for _ in data.glob(f'**/{c}/1'))]
            hint = f'; there are {", ".join(there)}. Measure these with --corruptions' if there \
                else ''
            raise MilanError(f'ImageNet-C: no folder {name} in {data}; expected DIR/[<group>/]'
                             f'{name}/<1 to 5>/<class>/<image>{hint}')
        for severity in SEVERITIES:
            if not (place / str(severity)).is_dir():
                raise MilanError(f'ImageNet-C: {place} has no severity {severity}; a corruption '
                                 'error takes all of 1 to 5')
            found[name, severity] = place / str(severity)
    return found


def existing(folder: str | Path) -> Path:
    """The folder; raises MilanError if there is none."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise MilanError(f'no such folder: {path}')
    return path


def step_into(root: Path, classes: set) -> Path:
    """``root``, or the one folder in it that holds class folders, such as imagenet-a/."""
    if not _has_class(root, classes):
        inner = [p for p in sorted(root.iterdir()) if p.is_dir() and _has_class(p, classes)]
        if len(inner) == 1:
            return inner[0]
    return root


def _has_class(root: Path, classes: set) -> bool:
    return any(p.name in classes and p.is_dir() for p in root.iterdir())


def _strange(root: Path, path: str, folder: str | None, known: dict[str, int],
             allowed: Sequence[str] | None) -> str:
    names = list(allowed or known)
    some = f'{len(names)} classes ({some_of(names, 3)})'
    if folder is None:
        return f'{path} lies in no class folder; expected {root}/<class>/<image>, of {some}'
    of = 'the suite\'s' if allowed else 'the classifier\'s'
    return (f'{root} has the folder {folder}, which is none of {of} {some}; expected '
            f'{root}/<class>/<image>. Give the folder that holds the class folders')
