# SPDX-License-Identifier: Apache-2.0
"""From a config and a checkpoint to predictions for an image, whatever the task."""
import contextlib
import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, init_default_scope
from PIL import Image
from torch import nn

from ..config.annotations import without_masks
from ..config.own_data import open_places
from ..errors import MilanError
from ..models.finetuning import merge_layers
from .checkpoint import Checkpoint

# Recognised by the base class's name, so that neither mmdet nor mmseg is imported unless a config
# asks for it.
_TASKS = {
    ('mmpretrain', 'BaseClassifier'): 'classification',
    ('mmdet', 'BaseDetector'): 'detection',
    ('mmseg', 'BaseSegmentor'): 'segmentation',
}


class TaskModel(NamedTuple):
    """A model ready to predict.

    Attributes:
        model: with its weights, in evaluation mode, on its device.
        task: 'classification', 'detection' or 'segmentation'.
        classes: names in the order of labels; empty if neither checkpoint nor config has them.
        palette: one RGB colour a class, or empty.
        pipeline: transforms after the image was read.
        as_array: whether the pipeline takes an array (H, W, 3) in BGR, or a Pillow image.
        dtype: type of that array.
    """
    model: nn.Module
    task: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    pipeline: Compose
    as_array: bool
    dtype: type = np.uint8

    def name_of(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else f'class {label}'

    @torch.no_grad()
    def __call__(self, image: Image.Image, path: str | Path = '') -> Any:
        """Predicts for one image (RGB); gives the sample of the model's package.

        Args:
            image: in its own size, which boxes and label maps come back in.
            path: where it was read, for the sample's meta data.
        """
        pixels: np.ndarray = np.ascontiguousarray(np.asarray(image)[..., ::-1]).astype(self.dtype)
        size = image.size[::-1]
        packed = self.pipeline(dict(
            img=pixels if self.as_array else image, img_path=str(path), img_id=0, ori_shape=size,
            img_shape=size))
        return self.model.test_step(pseudo_collate([packed]))[0]


def load_task_model(cfg: Config,
                    checkpoint: str | Path,
                    device: str | torch.device = 'cpu',
                    trust: bool = False) -> TaskModel:
    """Builds a config's model and loads a checkpoint of its training, every tensor of it.

    What the config would start its training from is neither needed nor read.

    Args:
        cfg: config of a classifier, a detector or a segmentor.
        checkpoint: written by a training with that config.
        device: to compute on.
        trust: see :func:`read_checkpoint`.

    Raises:
        MilanError: if the checkpoint cannot be read or does not fit, or the config describes
            nothing that predicts.
    """
    loaded = Checkpoint(checkpoint, cfg, trust=trust)
    meta = loaded.meta.get('dataset_meta')
    meta = {k.lower(): v for k, v in meta.items()} if isinstance(meta, dict) else {}
    classes = tuple(meta.get('classes') or _classes_of_config(cfg))
    palette = meta.get('palette') or ()
    if loaded.has_boxes_alone:
        without_masks(cfg)
    model = build_model(cfg, classes)
    task = task_of(model)
    loaded.load_into(model)
    merge_layers(model)
    pipeline, as_array, dtype = _pipeline(cfg)
    return TaskModel(
        model.to(device).eval(), task, _readable(classes),
        tuple(tuple(c) for c in palette) if len(palette) == len(classes) else (),
        pipeline, as_array, dtype)


def build_model(cfg: Config, classes: Sequence[str]) -> nn.Module:
    """The config's model with random weights, ``num_classes=None`` being filled in."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    model = copy.deepcopy(cfg.model)
    _fill_num_classes(model, len(classes))
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    if isinstance(model.get('backbone'), dict):
        model['backbone'].pop('init_cfg', None)
    try:
        built = MODELS.build(model)
    except MilanError:
        raise
    except Exception as error:
        raise MilanError(f'the model of {cfg.filename or "the config"} cannot be built: '
                         f'{type(error).__name__}: {error}') from error
    return revert_sync_batchnorm(built)  # which predicts the same, on any device


def task_of(model: nn.Module) -> str:
    """'classification', 'detection' or 'segmentation', by the model's base class.

    Raises:
        MilanError: for any other model.
    """
    for base in type(model).__mro__:
        task = _TASKS.get((base.__module__.partition('.')[0], base.__name__))
        if task:
            return task
    raise MilanError(f'{type(model).__name__} predicts no classes, boxes or label maps; expected '
                     'the config of a classifier, a detector or a segmentor. What an encoder has '
                     'learned is measured with: milan eval CHECKPOINT --data DIR')


def _datasets(cfg: Config) -> list[dict]:
    """The configs of the datasets, that of the test first, taken out of their wrappers."""
    found = []
    for name in ('test_dataloader', 'val_dataloader', 'train_dataloader'):
        dataset = (cfg.get(name) or {}).get('dataset')
        while dataset and 'pipeline' not in dataset and ('dataset' in dataset
                                                         or 'datasets' in dataset):
            dataset = dataset['dataset'] if 'dataset' in dataset else dataset['datasets'][0]
        if dataset:
            found.append(dataset)
    return found


def _classes_of_config(cfg: Config) -> tuple[str, ...]:
    """Those written in the config, else those a data set such as COCO brings along."""
    datasets = _datasets(cfg)
    for dataset in datasets:
        if (dataset.get('metainfo') or {}).get('classes'):
            return tuple(dataset['metainfo']['classes'])
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        for dataset in datasets:
            with contextlib.suppress(RuntimeError):  # a data set that is not installed here
                names = getattr(registry.get(dataset['type']), 'METAINFO', {}).get('classes')
                if names:
                    return tuple(names)
    return ()


def _fill_num_classes(part: Any, number: int) -> None:
    """Configs for one's own data leave the number open: the checkpoint knows it."""
    for place in open_places(part):
        if not number:
            raise MilanError('the config leaves num_classes open, and the checkpoint does not '
                             'name its classes; set it with --cfg-options (for a classifier '
                             'model.head.num_classes=N)')
        place['num_classes'] = number


def _readable(classes: tuple[str, ...]) -> tuple[str, ...]:
    """ImageNet's folders bear numbers of WordNet; mmpretrain knows the words."""
    if len(classes) == 1000 and all(re.fullmatch(r'n\d{8}', name) for name in classes):
        from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
        return tuple(IMAGENET_CATEGORIES)
    return tuple(str(name) for name in classes)


def _pipeline(cfg: Config) -> tuple[Compose, bool, type]:
    """The test pipeline without its reading of files, and what it expects in their place."""
    datasets = [d for d in _datasets(cfg) if d.get('pipeline')]
    if not datasets:
        raise MilanError(f'{cfg.filename} has no test_dataloader with a pipeline, so it is '
                         'unknown how images are fed to the model')
    steps = [s for s in datasets[0]['pipeline'] if not s['type'].endswith('LoadAnnotations')]
    loader: str | None = steps[0]['type'].rpartition('.')[2] if steps else None
    if loader not in ('LoadPILImage', 'LoadBGRImage', 'LoadImageFromFile'):
        raise MilanError(f'the test pipeline of {cfg.filename} begins with {loader}; expected '
                         'milan_mm.LoadPILImage, milan_mm.LoadBGRImage or LoadImageFromFile')
    dtype = np.float32 if steps[0].get('to_float32') else np.uint8
    return Compose(steps[1:]), loader != 'LoadPILImage', dtype
