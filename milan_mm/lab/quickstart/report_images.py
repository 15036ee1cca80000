# SPDX-License-Identifier: Apache-2.0
"""The images of the quickstart's page: the gallery, and what each encoder finds similar."""
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from ...analysis.visualization.neighbours import nearest_images
from ...analysis.visualization.views import Views, view
from ...checkpoints.io import last_checkpoint
from ...datasets.decoding import UnreadableImageError, open_image
from ...datasets.image_folder import find_images
from ...drawing import panels
from ...drawing.panels import Tile
from ...errors import MilanError
from ...inference.encoders import Extractor, get_model, get_teacher
from ...inference.images import load_pixels
from ...inference.pretraining import load_pretraining
from ...keyed_random import sample_key
from ...structures import pair
from ..captions import caption_of
from .teacher import find_teacher, noted_teacher

_CONFIG = 'milan_mm::quickstart/milan.py'
_NEIGHBOURS = 6
_SCALE = 3  # of a 64 px image in the gallery


def choose_images(root: Path, count: int) -> list[Path]:
    """Readable images of a folder ``root/<class>/``, of as many classes as possible."""
    try:
        found = [Path(path) for path in find_images(root)]
    except MilanError:
        return []
    rng = np.random.default_rng(sample_key(0, 0, 0, 'report images'))
    by_class: dict[str, list[Path]] = defaultdict(list)
    for index in rng.permutation(len(found)):
        by_class[found[index].relative_to(root).parts[0]].append(found[index])
    names = sorted(by_class)
    names = [names[i] for i in rng.permutation(len(names))]
    most = max(map(len, by_class.values()))
    turns = (by_class[name][turn] for turn in range(most) for name in names
             if turn < len(by_class[name]))
    chosen: list[Path] = []
    for path in turns:
        if len(chosen) == count:
            break
        try:
            open_image(path)
        except UnreadableImageError:
            continue
        chosen.append(path)
    return chosen


class Thumbnail(NamedTuple):
    """A small :class:`Tile` with its class, and whether that is the one of the image asked."""
    image: Image.Image
    caption: str
    alt: str
    photograph: bool
    label: str
    hit: bool


class GalleryRow(NamedTuple):
    """A held-out image and what was made of it."""
    label: str
    caption: str
    seen: float
    masked: float
    tiles: list[Tile]


class Gallery(NamedTuple):
    """The rows, and what the reader must know of their scales."""
    rows: list[GalleryRow]
    highest_error: float
    with_mae: bool


def make_gallery(work: Path, paths: list[Path]) -> Gallery | None:
    """One step of the trained MILAN on held-out images, seen panel by panel."""
    checkpoint = last_checkpoint(work / 'milan')
    if checkpoint is None or not paths:
        return None
    model = load_pretraining(checkpoint, _CONFIG, noted_teacher(work).spec)
    pixels = load_pixels(paths, tuple(model.backbone.img_size))
    views = view(model, pixels, draws=1, ratios=())
    seen = views.trained
    colours = _feature_colours(views, paths, last_checkpoint(work / 'mae'))
    highest = float(np.quantile(seen.error.numpy(), 0.98))
    rows = []
    for i, path in enumerate(paths):
        is_seen = np.isin(np.arange(seen.error.shape[1]), seen.visible[i].numpy())
        measure = seen.measure[i].numpy()
        caption = caption_of(path, work / 'data/test')
        rows.append(GalleryRow(
            _label(path, work / 'data/test'), caption,
            float(measure[is_seen].mean()), float(measure[~is_seen].mean()),
            _tiles(views, i, caption, highest, {n: c[i] for n, c in colours.items()})))
    return Gallery(rows, highest, 'MAE' in colours)


def _feature_colours(views: Views, paths: list[Path], mae: Path | None) -> dict[str, Tensor]:
    """(B, N, 3) colours of each encoder's patch features.

    Teacher and prediction live in one space and share the teacher's basis. A student has its own
    components, turned so that its colours come close to the teacher's.
    """
    basis = panels.fit_colours(views.target.flatten(0, 1))
    teacher = basis.scores(views.target)
    students = dict(MILAN=views.student)
    if mae is not None:
        extractor = get_model(mae, img_size=pair(views.pixels.shape[-2:]), crop_ratio=1)
        students['MAE'] = extractor([str(path) for path in paths]).patches
    colours = dict(teacher=teacher, predicted=basis.scores(views.trained.predicted))
    for name, features in students.items():
        flat = features.flatten(0, 1)
        own = panels.turn_colours(panels.fit_colours(flat), flat, teacher.flatten(0, 1))
        colours[name] = own.scores(features)
    return colours


def _tiles(views: Views, i: int, what: str, highest: float, colours: dict[str, Any]) -> list[Tile]:
    pixels, grid, seen = views.pixels[i], views.grid, views.trained
    size = pair(side * _SCALE for side in pixels.shape[-2:])
    top = divmod(int(views.importance[i].argmax()), grid[1])
    worst = divmod(int(seen.error[i].argmax()), grid[1])
    photographs = [
        (panels.as_image(pixels, _SCALE), 'image', what),
        (panels.importance_panel(pixels, views.importance[i], grid, _SCALE), 'importance',
         f'Importance over "{what}"; the most in row {top[0] + 1}, column {top[1] + 1}'),
        (panels.mask_panel(pixels, seen.visible[i], grid, _SCALE), 'mask',
         f'"{what}" as the student got it: {seen.visible.shape[1]} of {grid[0] * grid[1]} patches'),
    ]
    maps = [
        (panels.error_panel(seen.error[i], grid, size, highest, seen.visible[i]), 'error',
         f'Prediction error by patch of "{what}"; the largest in row {worst[0] + 1}, column '
         f'{worst[1] + 1}'),
        *((panels.feature_panel(scores, grid, size), name,
           f'Patch features of "{what}" as colours: {name}') for name, scores in colours.items())
    ]
    return [Tile(*tile, True) for tile in photographs] + [Tile(*tile, False) for tile in maps]


def retrieval_rows(work: Path, queries: list[Path]) -> list[dict]:
    """For held-out images, the training images that each encoder finds the most similar."""
    encoders = _encoders(work)
    if not encoders or not queries or not (work / 'data/train').is_dir():
        return []
    found = {name: nearest_images(encoder, work / 'data/train', queries, _NEIGHBOURS)
             for name, encoder in encoders.items()}
    some = next(iter(encoders.values()))

    def thumbnail(path: Path, part: str, asked: str | None = None) -> Thumbnail:
        label, caption = (of(path, work / 'data' / part) for of in (_label, caption_of))
        words = 'same class' if label == asked else 'another class'
        alt = caption if asked is None else f'{caption} ({label.replace("_", " ")}, {words})'
        return Thumbnail(_crop(path, some), caption, alt, True, label, label == asked)

    rows = []
    for i, query in enumerate(queries):
        asked = thumbnail(query, 'test')
        rows.append(dict(query=asked, answers={
            name: [thumbnail(near.path, 'train', asked.label) for near in lists[i]]
            for name, lists in found.items()}))
    return rows


def _crop(path: Path, extractor: Extractor) -> Image.Image:
    return panels.as_image(load_pixels([path], extractor.img_size)[0])


def _encoders(work: Path) -> dict[str, Extractor]:
    """The encoders that are there, each taking the whole of an image."""
    encoders: dict[str, Extractor] = {}
    for name in ('milan', 'mae'):
        checkpoint = last_checkpoint(work / name)
        if checkpoint is not None:
            encoders[name] = get_model(checkpoint, crop_ratio=1)
    teacher = find_teacher(work)
    if encoders and teacher:
        some = next(iter(encoders.values()))
        encoders['teacher'] = get_teacher(
            teacher.spec, some.img_size, some.patch_size, crop_ratio=1)
    return encoders


def _label(path: Path, root: Path) -> str:
    return path.relative_to(root).parts[0]
