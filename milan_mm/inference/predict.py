# SPDX-License-Identifier: Apache-2.0
"""From images to annotated images and a JSON file, for all three tasks."""
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..checkpoints import write_atomically
from ..config.options import merge_options
from ..config.read import read_config
from ..datasets.decoding import UnreadableImageError, composite, open_image
from ..datasets.image_folder import find_images
from ..drawing import predictions as drawing
from ..errors import MilanError
from ..progress import Progress
from .device import check_device
from .tasks import TaskModel, load_task_model


class Shown(NamedTuple):
    """How much of a prediction is shown.

    Attributes:
        topk: classes that are named, in classification.
        score_thr: below it a detection is left out.
    """
    topk: int = 5
    score_thr: float = 0.3


def predict(config: str | Path, checkpoint: str | Path, images: Sequence[str | Path],
            out: str | Path, *, topk: int = 5, score_thr: float = 0.3, device: str | None = None,
            cfg_options: dict | None = None, trust_checkpoint: bool = False) -> dict[str, Any]:
    """Predicts for images, writes ``predictions.json`` and the annotated images.

    Args:
        config: config of a classifier, a detector or a segmentor.
        checkpoint: checkpoint of a training with that config.
        images: files, or folders of them.
        out: folder to write to.
        topk, score_thr: see :class:`Shown`.
        device: to compute on; None for a GPU if there is one.
        cfg_options: changes of the config, dotted keys to values.
        trust_checkpoint: see :func:`read_checkpoint`.

    Returns:
        What ``predictions.json`` holds: ``images``, ``unreadable``, and what was used.

    Raises:
        MilanError: if an argument, the config or the checkpoint is at fault.
    """
    if topk < 1 or not 0 <= score_thr <= 1:
        raise MilanError(f'--topk must be at least 1 and --score-thr in 0..1, got {topk} and '
                         f'{score_thr}')
    out = Path(out).expanduser()
    paths = image_paths(images, out)
    names = output_names(paths)
    if out.resolve() in {path.resolve().parent for path in paths}:
        raise MilanError(f'--out {out} holds the images themselves; give another folder, which '
                         'may lie in it')
    cfg = read_config(config)
    merge_options(cfg, cfg_options)
    model = load_task_model(cfg, checkpoint, check_device(device), trust_checkpoint)
    report: dict[str, Any] = dict(
        task=model.task, config=str(config), checkpoint=str(checkpoint),
        classes=list(model.classes), images=[], unreadable=[])
    try:
        predict_all(model, paths, names, out, Shown(topk, score_thr), report)
    finally:  # what was done before an interruption is kept
        write_report(report, out / 'predictions.json')
    return report


def predict_all(model: TaskModel, paths: Sequence[Path], names: Sequence[str], out: Path,
                shown: Shown, report: dict[str, Any]) -> None:
    """Predicts for one image after the other, writes it and adds to the report."""
    for path, name in zip(Progress('images', paths), names):
        try:
            image = composite(open_image(path))
        except UnreadableImageError as error:
            print(f'left out: {error}', file=sys.stderr)
            report['unreadable'].append(dict(file=str(path), reason=str(error)))
        else:
            sample = model(image, path)
            entry, annotated = _PRESENT[model.task](model, sample, image, out, name, shown)
            _save(annotated, out / f'{name}.png')
            report['images'].append(dict(
                file=str(path), annotated=f'{name}.png', width=image.width, height=image.height,
                **entry))


def image_paths(given: Sequence[str | Path], out: Path) -> list[Path]:
    """The images themselves and those below folders, without what an earlier run left in ``out``.

    Raises:
        MilanError: if one is neither a file nor a folder with images.
    """
    paths: dict[Path, None] = {}
    for text in given:
        path = Path(text).expanduser()
        if path.is_dir():
            paths.update(dict.fromkeys(found for found in map(Path, find_images(path))
                                       if out.resolve() not in found.resolve().parents
                                       or out.resolve() == path.resolve()))
        elif path.is_file():
            paths[path] = None
        else:
            raise MilanError(f'no such image or folder: {text}')
    return list(paths)


def output_names(paths: Sequence[Path]) -> list[str]:
    """A name without suffix for each image, alike ones being numbered."""
    used: dict[str, str] = {}
    for path in paths:
        name, count = path.stem, 1
        while name.lower() in used:
            count += 1
            name = f'{path.stem}_{count}'
        used[name.lower()] = name
    return list(used.values())


def write_report(report: dict[str, Any], path: Path) -> None:
    """Writes JSON in UTF-8; bytes of file names that are no UTF-8 are escaped."""
    text = json.dumps(report, indent=1, ensure_ascii=False)
    write_atomically(path, lambda temporary: temporary.write_text(
        text, encoding='utf-8', errors='backslashreplace'))


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _present_classification(model: TaskModel, sample: Any, image: Image.Image, out: Path,
                            name: str, shown: Shown) -> tuple[dict, Image.Image]:
    scores, labels = sample.pred_score.flatten().topk(min(shown.topk, sample.pred_score.numel()))
    top = [{'class': model.name_of(label), 'label': label, 'score': round(score, 6)}
           for label, score in zip(labels.tolist(), scores.tolist())]
    annotated = drawing.draw_classification(image, [(row['class'], row['score']) for row in top])
    return dict(predictions=top), annotated


def _present_detection(model: TaskModel, sample: Any, image: Image.Image, out: Path, name: str,
                       shown: Shown) -> tuple[dict, Image.Image]:
    found = sample.pred_instances
    found = found[found.scores >= shown.score_thr].cpu()
    masks = np.asarray(found.masks, dtype=bool) if 'masks' in found else [None] * len(found)
    colours = _colours(model, found.labels.tolist())
    instances, entries = [], []
    for box, score, label, mask in zip(
            found.bboxes.tolist(), found.scores.tolist(), found.labels.tolist(), masks):
        instances.append(drawing.Instance(box, model.name_of(label), score, colours[label], mask))
        entries.append({'class': model.name_of(label), 'label': label, 'score': round(score, 6),
                        'box': [round(side, 2) for side in box]})
        if mask is not None:
            entries[-1]['mask'] = _run_lengths(mask)
    return dict(instances=entries), drawing.draw_detection(image, instances)


def _present_segmentation(model: TaskModel, sample: Any, image: Image.Image, out: Path, name: str,
                          shown: Shown) -> tuple[dict, Image.Image]:
    labels = sample.pred_sem_seg.data[0].cpu().numpy().astype(np.uint16)
    found, counts = np.unique(labels, return_counts=True)
    order = np.argsort(-counts, kind='stable')
    colours = _colours(model, found.tolist())
    rows = [(int(found[i]), model.name_of(int(found[i])), float(counts[i] / labels.size),
             colours[int(found[i])]) for i in order]
    _save(Image.fromarray(labels if labels.max() > 255 else labels.astype(np.uint8)),
          out / 'labels' / f'{name}.png')
    entries = [{'class': row[1], 'label': row[0], 'share': round(row[2], 6)} for row in rows]
    annotated = drawing.draw_segmentation(image, labels, rows)
    return dict(labels=f'labels/{name}.png', shares=entries), annotated


_PRESENT = dict(classification=_present_classification, detection=_present_detection,
                segmentation=_present_segmentation)


def _colours(model: TaskModel, labels: Sequence[int]) -> Sequence[tuple[int, int, int]]:
    number = max([len(model.classes), *(label + 1 for label in labels)])
    return model.palette or drawing.class_colours(number)


def _run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths, as its JSON files have them."""
    from pycocotools import mask as coco_mask  # comes with mmdet
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(size=list(map(int, encoded['size'])), counts=encoded['counts'].decode('ascii'))
