# SPDX-License-Identifier: Apache-2.0
"""Annotations that are not in the format a config reads: written anew, and read from there."""
import hashlib
import json
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from ..checkpoints.io import write_atomically
from ..datasets.formats.maps import coco_classes, draw_coco, index_colours, read_colours
from ..datasets.formats.yolo import find_yaml, read_yolo
from .annotations import metrics_of
from .data_paths import LOADERS, datasets_of

_SPLITS = {'training': 'train', 'validation': 'val'}  # ADE20K's names


def take_formats(cfg: Config) -> None:
    """Lets a config of COCO's format read YOLO's, and one of label maps COCO's or coloured ones.

    Where its own files are not there, and others are: what they say is written to ``data_check/``
    in the work folder, in the format wanted.

    Args:
        cfg: changed in place.

    Raises:
        MilanError: if these files cannot be understood.
    """
    folder = Path(cfg.get('work_dir') or 'work_dirs') / 'data_check'
    for name in LOADERS:
        for dataset in datasets_of((cfg.get(name) or {}).get('dataset')):
            kind = dataset.get('type', '').rpartition('.')[2]
            root = Path(dataset.get('data_root') or '').expanduser()
            if kind == 'CocoDataset' and not (root / dataset.get('ann_file', '')).is_file():
                _take_yolo(cfg, dataset, root, name.partition('_')[0], folder)
            elif kind == 'LabelMapFolder' and not dataset.get('ann_file'):
                _take_maps(dataset, root, folder)


def _take_yolo(cfg: Config, dataset: dict, root: Path, split: str, folder: Path) -> None:
    description = find_yaml(root) if root.is_dir() else None
    if description is None:
        return
    split = split if split == 'train' else 'val'  # an evaluation's test set, as in own_coco.py
    content = read_yolo(description, split)
    target = (folder / f'yolo_{split}.json').absolute()
    write_atomically(target, lambda path: path.write_text(json.dumps(content), encoding='utf-8'))
    _tell(description, f'{len(content["annotations"])} boxes in {len(content["images"])} images',
          target)
    for metric in metrics_of(cfg):
        if metric.get('ann_file') and Path(metric['ann_file']).expanduser() == (
                root / dataset['ann_file']):
            metric['ann_file'] = str(target)
    dataset.update(ann_file=str(target), data_prefix=dict(img=''))


def _take_maps(dataset: dict, root: Path, folder: Path) -> None:
    prefix = dataset['data_prefix']
    split = Path(prefix.get('img_path', '')).name
    split = _SPLITS.get(split, split)
    source, colour_list = root / 'annotations' / f'{split}.json', root / 'labelmap.txt'
    if source.is_file() and (root / split).is_dir() and not (
            root / prefix['seg_map_path']).exists():
        classes = coco_classes(source)
        target = _folder_of(source, folder, split)
        _tell(source, f'{draw_coco(source, target)} label maps of {len(classes)} classes', target)
        prefix['img_path'] = split
    elif colour_list.is_file() and (root / prefix['seg_map_path']).is_dir():
        colours = read_colours(colour_list)
        target = _folder_of(colour_list, folder, split)
        count = index_colours(root / prefix['seg_map_path'], colours, target)
        classes = tuple(colours)
        _tell(colour_list, f'{count} label maps of {len(classes)} colours', target)
    else:
        return
    prefix['seg_map_path'] = str(target)
    dataset['metainfo'] = dict(dataset.get('metainfo') or {}, classes=classes)


def _folder_of(source: Path, folder: Path, split: str) -> Path:
    """For the maps of these classes and these images alone: the work folder may see others."""
    text = str(source.resolve()).encode() + source.read_bytes()
    return (folder / f'maps_{split}_{hashlib.sha256(text).hexdigest()[:8]}').absolute()


def _tell(source: Path, what: str, target: Path) -> None:
    print_log(f'{source}: {what}, written to {target}', logger='current')
