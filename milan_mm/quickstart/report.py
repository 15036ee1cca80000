# SPDX-License-Identifier: Apache-2.0
"""The quickstart's page: the result, what was learned, and how it was made, in one file.

No request leaves the page and it runs no script. Whatever comes from users' files (class names,
captions, paths) is escaped by the template engine.
"""
import json
import math
import os
from collections import defaultdict
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..checkpoint_io import write_atomically
from ..datasets.decoding import UnreadablePicture, open_picture
from ..datasets.picture_folder import find_pictures
from ..errors import MilanError
from ..evaluation.curves import Run, read_run
from ..hub import Extractor, get_model, get_teacher
from ..keyed_random import sample_key
from ..visualization import panels
from ..visualization.charts import Bars, Curves, Series, axis_end, bar_chart, curve_chart
from ..visualization.neighbours import nearest_pictures
from ..visualization.reconstruction import Look, load_milan, load_pixels, look
from .captions import caption_of
from .verdict import KINDS, judge, shift_sentence

_ROOT = Path(__file__).resolve().parents[2]
_CONFIG = _ROOT / 'configs/quickstart/milan.py'
_NAMES = dict(milan='MILAN', mae='MAE', random='random weights', teacher='CLIP teacher')
_GALLERY, _QUERIES, _NEIGHBOURS = 10, 5, 6
_SCALE = 3  # of a 64 px picture in the gallery
_MASKED_RATIO_NOTE = 'share of the teacher\'s attention that falls on patches shown'


def write_report(work: Path) -> Path:
    """Writes ``WORK/report.html`` from what the other stages left in ``WORK``.

    ``results.json`` and ``data/meta.json`` must be there. What else is missing (a run's curves, a
    checkpoint, the styles) is left out of the page, which then says why where that is no matter
    of course.

    Args:
        work: the quickstart's folder.

    Returns:
        The path of the page.

    Raises:
        MilanError: if there is no result to report.
    """
    work = Path(work)
    results = _read_json(work / 'results.json', 'eval')
    meta = _read_json(work / 'data/meta.json', 'pictures')
    pictures = choose_pictures(work / 'data/test', _GALLERY)
    gallery, gallery_note = _or_reason(lambda: make_gallery(work, pictures))
    rows, rows_note = _or_reason(lambda: retrieval_rows(work, pictures[:_QUERIES]))
    page = render(
        verdict=judge(results),
        results=results,
        meta=meta,
        charts=accuracy_charts(results, 'classification'),
        shift_charts=accuracy_charts(results, 'style_shift'),
        shift_sentence=shift_sentence(results) if 'style_shift' in results else '',
        gallery=gallery,
        gallery_note=gallery_note,
        retrieval=rows,
        retrieval_note=rows_note,
        curves=training_curves(work),
        teacher=_read_json(work / 'teacher/log.json', None).get('recipe', {}),
        commands=next_steps(work, meta))
    out = work / 'report.html'
    # A file name that is no text in the system's encoding must not cost the page.
    write_atomically(out, lambda path: path.write_bytes(page.encode('utf-8', 'replace')))
    return out


def render(**content: Any) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True)
    environment.filters.update(duration=duration, words=lambda name: str(name).replace('_', ' '))
    return environment.get_template('report.html.j2').render(names=_NAMES, **content)


def accuracy_charts(results: dict, block: str) -> List[Bars]:
    """k-NN and linear probe of a block of ``results.json``, on one scale; none if it is not there."""
    kinds = {kind: results[block][kind] for kind in KINDS if kind in results.get(block, {})}
    if not kinds:
        return []
    chance = results.get('chance')
    rows = {
        kind: [(name, _NAMES[name], float(row[name]), row.get(f'{name}_std'))
               for name in reversed(_NAMES) if name in row]
        for kind, row in kinds.items()
    }
    # One scale for both blocks, so that they can be compared by eye.
    everything = [row[name] + row.get(f'{name}_std', 0.0)
                  for part in ('classification', 'style_shift')
                  for row in results.get(part, {}).values() for name in _NAMES if name in row]
    axis = axis_end([*everything, chance or 0.0])
    return [bar_chart(KINDS[kind], rows[kind], chance, axis) for kind in kinds]


def choose_pictures(root: Path, count: int) -> List[Path]:
    """Readable pictures of a folder ``root/<class>/``, of as many classes as possible."""
    try:
        found = [Path(path) for path in find_pictures(root)]
    except MilanError:
        return []
    rng = np.random.default_rng(sample_key(0, 0, 0, 'report pictures'))
    by_class: Dict[str, List[Path]] = defaultdict(list)
    for index in rng.permutation(len(found)):
        by_class[found[index].relative_to(root).parts[0]].append(found[index])
    names = sorted(by_class)
    names = [names[i] for i in rng.permutation(len(names))]
    most = max(map(len, by_class.values()))
    turns = (by_class[name][turn] for turn in range(most) for name in names
             if turn < len(by_class[name]))
    chosen: List[Path] = []
    for path in turns:
        if len(chosen) == count:
            break
        try:
            open_picture(path)
        except UnreadablePicture:
            continue
        chosen.append(path)
    return chosen


class Tile(NamedTuple):
    """A picture on the page: its address, what stands below it, and its description."""
    uri: str
    caption: str
    alt: str


class GalleryRow(NamedTuple):
    """A held-out picture and what was made of it."""
    label: str
    caption: str
    seen: float
    masked: float
    tiles: List[Tile]


class Gallery(NamedTuple):
    """The rows, and what the reader must know of their scales."""
    rows: List[GalleryRow]
    highest_error: float
    importance_stops: str
    error_stops: str
    with_mae: bool


def make_gallery(work: Path, paths: List[Path]) -> Optional[Gallery]:
    """One step of the trained MILAN on held-out pictures, seen panel by panel."""
    checkpoint = _last(work / 'milan')
    if checkpoint is None or not paths:
        return None
    model = load_milan(_CONFIG, checkpoint, work / 'teacher')
    seen = look(model, load_pixels(paths, tuple(model.backbone.img_size)))
    colours = _feature_colours(seen, paths, _last(work / 'mae'))
    highest = float(np.quantile(seen.error.numpy(), 0.98))
    rows = []
    for i, path in enumerate(paths):
        is_seen = np.isin(np.arange(seen.error.shape[1]), seen.visible[i].numpy())
        measure = seen.measure[i].numpy()
        caption = caption_of(path, work / 'data/test')
        rows.append(GalleryRow(
            _label(path, work / 'data/test'), caption,
            float(measure[is_seen].mean()), float(measure[~is_seen].mean()),
            _tiles(seen, i, caption, highest, {n: c[i] for n, c in colours.items()})))
    return Gallery(rows, highest, panels.colour_stops(panels.IMPORTANCE_COLOURS),
                   panels.colour_stops(panels.ERROR_COLOURS), 'MAE' in colours)


def _feature_colours(seen: Look, paths: List[Path], mae: Optional[Path]) -> Dict[str, Any]:
    """(B, N, 3) colours of each encoder's patch features.

    Teacher and prediction live in one space and share the teacher's basis. A student has its own
    components, turned so that its colours come close to the teacher's.
    """
    basis = panels.fit_colours(seen.target.flatten(0, 1))
    teacher = basis.scores(seen.target)
    students = dict(MILAN=seen.student)
    if mae is not None:
        extractor = get_model(mae, img_size=tuple(seen.pixels.shape[-2:]), crop_ratio=1)
        students['MAE'] = extractor([str(path) for path in paths]).patches
    colours = dict(teacher=teacher, predicted=basis.scores(seen.predicted))
    for name, features in students.items():
        flat = features.flatten(0, 1)
        own = panels.turn_colours(panels.fit_colours(flat), flat, teacher.flatten(0, 1))
        colours[name] = own.scores(features)
    return colours


def _tiles(seen: Look, i: int, what: str, highest: float, colours: Dict[str, Any]) -> List[Tile]:
    pixels, grid = seen.pixels[i], seen.grid
    size = tuple(side * _SCALE for side in pixels.shape[-2:])
    top = divmod(int(seen.importance[i].argmax()), grid[1])
    worst = divmod(int(seen.error[i].argmax()), grid[1])
    photographs = [
        (panels.as_picture(pixels, _SCALE), 'picture', what),
        (panels.importance_panel(pixels, seen.importance[i], grid, _SCALE), 'importance',
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
    return [Tile(panels.data_uri(image, photograph=True), name, alt)
            for image, name, alt in photographs] + [
                Tile(panels.data_uri(image), name, alt) for image, name, alt in maps]


def retrieval_rows(work: Path, queries: List[Path]) -> List[dict]:
    """For held-out pictures, the training pictures that each encoder finds the most similar."""
    encoders = _encoders(work)
    if not encoders or not queries or not (work / 'data/train').is_dir():
        return []
    found = {name: nearest_pictures(encoder, work / 'data/train', queries, _NEIGHBOURS)
             for name, encoder in encoders.items()}
    some = next(iter(encoders.values()))

    def thumbnail(path: Path, root: Path) -> dict:
        return dict(uri=panels.data_uri(_crop(path, some), photograph=True),
                    label=_label(path, root), caption=caption_of(path, root))

    rows = []
    for i, query in enumerate(queries):
        asked = thumbnail(query, work / 'data/test')
        answers = {name: [dict(thumbnail(n.path, work / 'data/train'), cosine=n.cosine)
                          for n in lists[i]] for name, lists in found.items()}
        for shown in answers.values():
            for one in shown:
                one['hit'] = one['label'] == asked['label']
        rows.append(dict(query=asked, answers=answers))
    return rows


def _crop(path: Path, extractor: Extractor) -> Any:
    return panels.as_picture(load_pixels([path], extractor.img_size)[0])


def _encoders(work: Path) -> Dict[str, Extractor]:
    """The encoders that are there, each taking the whole of a picture."""
    encoders: Dict[str, Extractor] = {}
    for name in ('milan', 'mae'):
        checkpoint = _last(work / name)
        if checkpoint is not None:
            encoders[name] = get_model(checkpoint, crop_ratio=1)
    if encoders and (work / 'teacher/open_clip_config.json').is_file():
        some = next(iter(encoders.values()))
        encoders['teacher'] = get_teacher(
            str(work / 'teacher'), some.img_size, some.patch_size, crop_ratio=1)
    return encoders


def training_curves(work: Path) -> List[Curves]:
    """What the three trainings logged, as far as it is there."""
    milan, mae = (_run(work / name) for name in ('milan', 'mae'))
    teacher = _read_json(work / 'teacher/log.json', None).get('curve', [])
    steps = [point['step'] for point in teacher]

    def of(run: Optional[Run], key: str, label: str, colour: str, factor: float = 1) -> List[Series]:
        if run is None or key not in run.curves:
            return []
        steps, values = run.curves[key]
        return [Series(label, colour, steps, values * factor)]

    charts = [
        curve_chart('MILAN: loss', '2 − 2 cos, all tokens', of(milan, 'loss', 'MILAN', 'milan')),
        curve_chart('MILAN: cosine to the teacher', '1 is a perfect prediction',
                    of(milan, 'cos_visible', 'patches seen', 'milan')
                    + of(milan, 'cos_masked', 'patches masked', 'second')),
        curve_chart('Importance seen', _MASKED_RATIO_NOTE,
                    of(milan, 'importance_seen', 'MILAN', 'milan', 100)
                    + of(mae, 'importance_seen', 'if all patches counted the same', 'random', 100),
                    percent=True, include=(0, )),
        curve_chart('MAE: loss', 'squared error of masked pixels', of(mae, 'loss', 'MAE', 'mae')),
        curve_chart('CLIP teacher: loss', 'contrastive, picture against caption',
                    [Series('CLIP', 'teacher', steps, [p['loss'] for p in teacher])]),
        curve_chart('CLIP teacher: retrieval', 'pictures whose own caption in the batch is nearest',
                    [Series('CLIP', 'teacher', steps, [p['accuracy'] for p in teacher])],
                    percent=True, include=(0, )),
    ]
    return [chart for chart in charts if chart is not None]


def next_steps(work: Path, meta: dict) -> List[dict]:
    """Commands that take it further, ready to be pasted into a shell at the project's root."""
    here = os.path.relpath(work, _ROOT)
    here = str(work.resolve()) if here.startswith('..') else here
    checkpoint = _last(work / 'milan')
    steps = [
        dict(why='The same on your own pictures, one folder a class',
             command='bash tools/quickstart.sh --pictures DIR --work-dir work_dirs/own'),
        dict(why='Mean and spread of three repetitions',
             command='bash tools/quickstart.sh --seeds 3'
             + (' --pictures DIR' if meta.get('kind') == 'own' else '')),
    ]
    if checkpoint is not None:
        steps.append(dict(
            why='Features of any folder of pictures, from the encoder trained here',
            command=f'.venv/bin/python tools/extract_features.py {here}/milan/{checkpoint.name} '
            '--data DIR --out features.npz --kind cls patches'))
    steps.append(dict(
        why='A ViT-B/16 on your own pictures, on one GPU; no labels needed',
        command='.venv/bin/python tools/train.py configs/milan/own_pictures.py --data-root DIR'))
    steps.append(dict(
        why='The paper\'s recipe on ImageNet, on 8 GPUs',
        command='bash tools/dist_train.sh configs/milan/vitb_pretrain.py 8 --data-root '
        'data/imagenet/train'))
    return steps


def duration(seconds: float) -> str:
    """72.4 gives '1 min 12 s'."""
    seconds = float(seconds)
    if seconds < 60:
        return f'{seconds:.1f} s' if seconds < 10 else f'{seconds:.0f} s'
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes} min' if hours else f'{minutes} min {rest} s'


def _read_json(path: Path, stage: Optional[str]) -> dict:
    """The content; if the file is missing an empty dict, or an error if a stage should have made it."""
    if not path.is_file():
        if stage is None:
            return {}
        raise MilanError(f'{path} is missing, so there is nothing to report: run the stage '
                         f'"{stage}" first (--stage {stage})')
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise MilanError(f'{path} is no valid JSON ({error}); delete it and run its stage again'
                         ) from error


def _or_reason(make: Callable[[], Any]) -> Any:
    """What is made and '', or None and why it could not be made."""
    try:
        return make(), ''
    except MilanError as error:
        return None, str(error)


def _run(path: Path) -> Optional[Run]:
    try:
        return read_run(path)
    except MilanError:
        return None


def _last(run: Path) -> Optional[Path]:
    found = list(run.glob('epoch_*.pth'))
    return max(found, key=lambda p: int(p.stem.split('_')[1])) if found else None


def _label(path: Path, root: Path) -> str:
    return path.relative_to(root).parts[0]
