# SPDX-License-Identifier: Apache-2.0
"""What a run's last checkpoint makes of a few images."""
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from ...compat.quiet_import import quiet_import
from ...datasets.decoding import open_image
from ...drawing.panels import Tile
from ...drawing.predictions import UNTINTED, class_colours, image_alone
from ...errors import MilanError
from ...inference.images import load_pixels
from ...inference.predict import Shown, predict_all
from ...inference.pretraining import load_pretraining
from ...inference.tasks import load_task_model
from ..visualization.tiles import Painter, TileRow
from ..visualization.views import view
from ..visualization.visualize import gather

_SCORE = 0.3
_LOADERS = ('test_dataloader', 'val_dataloader', 'train_dataloader')


def some_images(cfg: Config, given: str | Path | None, most: int) -> list[Path]:
    """Images of a folder that was given, else of the run's own data: its test set, if it has one.

    Raises:
        MilanError: if there is none.
    """
    if given is not None:
        return gather([given], most, 0)[0]
    roots = [_folder(dataset) for name in _LOADERS for dataset in [_dataset(cfg, name)] if dataset]
    for root in roots:
        if root.is_dir():
            return gather([root], most, 0)[0]
    raise MilanError(f'the images of the run are not at {roots[0] if roots else "any place"} now; '
                     '--images DIR shows others')


def pretraining_rows(checkpoint: Path, paths: Sequence[Path], teacher: str | None,
                     device: torch.device, trust: bool) -> list[TileRow]:
    """A row an image: importance, a mask, features and what was predicted."""
    model = load_pretraining(checkpoint, None, teacher, None, trust).to(device)
    views = view(model, load_pixels(paths, tuple(model.backbone.img_size)), draws=1, ratios=())
    measure = model.head.loss_module.measure if model.predicts else ''
    painter = Painter(views, measure, [path.name for path in paths])
    rows = []
    for i, path in enumerate(paths):
        given, features = painter.rows(i)[:2]
        rows.append(TileRow(path.name, [*given.tiles, *features.tiles]))
    return rows


def task_rows(cfg: Config, checkpoint: Path, paths: Sequence[Path], device: torch.device,
              trust: bool) -> tuple[list[TileRow], list[tuple[str, str]]]:
    """One row, the images with what was predicted drawn on them; and the colours of classes.

    The latter is (name, colour) of each class in the images' label maps, else empty.
    """
    with quiet_import():  # of mmdet and mmseg
        model = load_task_model(cfg, checkpoint, device, trust)
    report: dict[str, Any] = dict(images=[], unreadable=[])
    tiles = []
    with tempfile.TemporaryDirectory() as folder:
        predict_all(model, paths, [str(i) for i in range(len(paths))], Path(folder),
                    Shown(score_thr=_SCORE), report)
        for entry in report['images']:
            drawn = open_image(Path(folder, entry['annotated']))
            image = image_alone(drawn, (entry['width'], entry['height']))
            words, name = _words(entry), Path(entry['file']).name
            tiles.append(Tile(image, f'{name}: {words}',
                              f'"{name}" with what was predicted: {words}', True))
    seen = {one['label']: one['class'] for entry in report['images']
            for one in entry.get('shares', ()) if one['class'] != UNTINTED}
    colours = model.palette or class_colours(max([len(model.classes), *(i + 1 for i in seen)]))
    return [TileRow('', tiles)], [(seen[label], '#{:02x}{:02x}{:02x}'.format(*colours[label]))
                                  for label in sorted(seen)]


def _words(entry: dict[str, Any]) -> str:
    if 'instances' in entry:
        found = [f'{one["class"]} {one["score"]:.2f}' for one in entry['instances']]
        return ', '.join(found[:4]) if found else f'nothing found above {_SCORE}'
    if 'shares' in entry:
        return ', '.join(f'{one["class"]} {one["share"]:.0%}' for one in entry['shares'][:4])
    best = entry['predictions'][0]
    return f'{best["class"]} {best["score"]:.0%}'


def _dataset(cfg: Config, name: str) -> dict | None:
    """The data set of a loader, taken out of its wrappers."""
    dataset = (cfg.get(name) or {}).get('dataset')
    while dataset and 'data_root' not in dataset and 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset if dataset and dataset.get('data_root') else None


def _folder(dataset: dict) -> Path:
    prefix = dataset.get('data_prefix') or ''
    if not isinstance(prefix, str):
        prefix = prefix.get('img') or prefix.get('img_path') or ''
    return Path(dataset['data_root'], prefix).expanduser()
