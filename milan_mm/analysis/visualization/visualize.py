# SPDX-License-Identifier: Apache-2.0
"""What a trained model does with given images: a sheet for each, and one page."""
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ...checkpoints.io import write_atomically
from ...compat.pixel_statistics import pixel_statistics
from ...datasets.decoding import UnreadableImageError, open_image
from ...datasets.image_folder import find_images
from ...errors import MilanError
from ...inference.encoders import Extractor, FeatureExtractor, TeacherExtractor
from ...inference.images import load_pixels
from ...keyed_random import sample_key
from ...models import MILAN
from ...progress import Progress
from .neighbours import Neighbour, nearest_images
from .page import PageRow, mean_facts, write_page
from .sheet import draw_sheet
from .tiles import Painter, TileRow, facts_of, number
from .views import RATIOS, view

_NEIGHBOURS = 6


class Visualized(NamedTuple):
    """What was written.

    Attributes:
        page: path of the page.
        sheets: path of the PNG of each image.
        means: over the images, of the numbers that stand at each, by name.
        left_out: for each folder that was given and has more images, how many.
    """
    page: Path
    sheets: list[Path]
    means: dict[str, float]
    left_out: dict[str, int]


def visualize(model: MILAN,
              images: Sequence[str | Path],
              out: str | Path,
              *,
              source: str = 'a model',
              folder: str | Path | None = None,
              seed: int = 0,
              draws: int = 4,
              ratios: Sequence[float] = RATIOS,
              most: int = 8,
              gallery: int = 1000,
              log: Callable[[str], None] = print) -> Visualized:
    """Writes ``OUT/index.html`` and ``OUT/<number>_<name>.png`` for each image.

    Args:
        model: what :func:`load_pretraining` gave.
        images: files, and folders of them.
        out: the folder.
        source: what the page calls the model.
        folder: images among which the nearest are looked for; None for none.
        seed: seed of masks, and of the images drawn from folders.
        draws: masks drawn at the training's ratio.
        ratios: shares of patches to mask besides.
        most: images taken of each folder in ``images``.
        gallery: images of ``folder`` that are looked at.
        log: receives lines of progress.

    Raises:
        MilanError: if an image cannot be read, or a number makes no image.
    """
    check_numbers(draws, ratios, most, gallery)
    paths, left_out = gather(images, most, seed)
    size = tuple(model.backbone.img_size)
    progress = Progress('images', len(paths), log)
    views = view(model, load_pixels(paths, size), seed, draws, ratios, progress.update)
    progress.close()
    names = _short_names(paths)
    measure = model.head.loss_module.measure if model.predicts else ''
    painter = Painter(views, measure, names)
    near = _neighbour_rows(model, painter, paths, folder, gallery, seed) if folder else None
    rows = []
    for i, path in enumerate(paths):
        facts = facts_of(views, i, measure)
        sheet = f'{i + 1:02d}_{re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem)[:60]}.png'
        rows.append(PageRow(names[i], facts, painter.rows(i) + (near[i] if near else []), sheet))
    sheets = _write_sheets(Path(out), rows, painter.highest)
    page = write_page(Path(out) / 'index.html', rows, views, painter, source, measure,
                      bool(measure) and model.head.tokens == 'masked')
    return Visualized(page, sheets, mean_facts(rows), left_out)


def _write_sheets(out: Path, rows: Sequence[PageRow], highest: float) -> list[Path]:
    for row in rows:
        words = '; '.join(f'{name} {number(value)}' for name, value in row.facts.items())
        image = draw_sheet(row.name, words, row.rows, highest)
        write_atomically(out / row.sheet, image.save)
    return [out / row.sheet for row in rows]


def check_numbers(draws: int, ratios: Sequence[float], most: int, gallery: int) -> None:
    """Raises MilanError for numbers that make no image."""
    if min(draws, most, gallery) < 1:
        raise MilanError('--num-masks, --num-images and --num-gallery must be at least 1, got '
                         f'{draws}, {most}, {gallery}')
    wrong = [ratio for ratio in ratios if not 0 < ratio < 1]
    if wrong:
        raise MilanError(f'--ratios must be between 0 and 1, got {wrong[0]:g}: they are shares of '
                         'patches that are masked')


def gather(given: Sequence[str | Path], most: int,
           seed: int) -> tuple[list[Path], dict[str, int]]:
    """Files as they are, and of each folder some readable images, drawn by ``seed``.

    Returns:
        The paths, each once, and for each folder that has more how many were left out.

    Raises:
        MilanError: if there is nothing of that name.
    """
    paths: list[Path] = []
    left_out: dict[str, int] = {}
    for one in map(Path, given):
        if not one.is_dir():
            if not one.is_file():
                raise MilanError(f'no such image or folder: {one}')
            paths.append(one)
            continue
        found = find_images(one)
        order = np.random.default_rng(sample_key(seed, 0, 0, 'images')).permutation(len(found))
        chosen = _first_readable([found[i] for i in order], most)
        if not chosen:
            raise MilanError(f'none of the {len(found)} images in {one} can be decoded')
        paths += sorted(chosen)
        if len(found) > len(chosen):
            left_out[str(one)] = len(found) - len(chosen)
    return list(dict.fromkeys(paths)), left_out


def _first_readable(found: Sequence[str], most: int) -> list[Path]:
    chosen: list[Path] = []
    for path in found:
        try:
            open_image(path)
        except UnreadableImageError:
            continue
        chosen.append(Path(path))
        if len(chosen) == most:
            break
    return chosen


def _short_names(paths: Sequence[Path]) -> list[str]:
    """File names, with so many folders before them as tell them apart."""
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ['/'.join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def extractors_of(model: MILAN) -> dict[str, Extractor]:
    """The encoder, and the teacher if it has a CLS token; both take the whole of an image."""
    size, statistics = tuple(model.backbone.img_size), pixel_statistics(model.data_preprocessor)
    found: dict[str, Extractor] = dict(
        encoder=FeatureExtractor(model.backbone, size, *statistics, 1))
    patches = model.backbone.grid_size[0] * model.backbone.grid_size[1]
    device = next(model.parameters()).device
    for teacher in model.teachers:
        if not teacher.measures_importance:
            continue
        probe = teacher(torch.zeros(1, 3, *size, device=device)).features
        if probe.shape[1] == patches + 1:
            found.setdefault('teacher', TeacherExtractor(
                teacher, size, model.backbone.patch_size, *statistics, 1))
    return {name: extractor.to(device) for name, extractor in found.items()}


def _neighbour_rows(model: MILAN, painter: Painter, paths: Sequence[Path],
                    folder: str | Path, gallery: int, seed: int) -> list[list[TileRow]]:
    """For each image a row for the encoder and one for the teacher."""
    root = Path(folder).expanduser()
    rows: list[list[TileRow]] = [[] for _ in paths]
    for name, extractor in extractors_of(model).items():
        found = nearest_images(extractor, root, paths, _NEIGHBOURS + 1, gallery, seed,
                               f'nearest by the {name}')
        for i, path in enumerate(paths):
            others = _without(found[i], path)[:_NEIGHBOURS]
            rows[i].append(painter.neighbours(
                f"Nearest in {root.name or root} by the {name}'s CLS token, with the cosine",
                others, root))
    return rows


def _without(found: Sequence[Neighbour], path: Path) -> list[Neighbour]:
    """The query itself, if the folder holds it, is no neighbour."""
    return [one for one in found if one.path.resolve() != path.resolve()]
