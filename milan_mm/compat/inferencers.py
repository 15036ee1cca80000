# SPDX-License-Identifier: Apache-2.0
"""mmdet's and mmseg's inferencers know one loading transform, by its name.

``DetInferencer`` (mmdet 3.3 and 3.5) and ``MMSegInferencer`` (mmseg 1.2 and 1.4) put a loader of
their own in the place of ``LoadImageFromFile`` and refuse a pipeline without one; mmseg leaves
``LoadAnnotations`` out where it is written without its scope. The pipelines of this package read an
image by their own transform, upright and with the limits of training, and name scopes. Where such a
pipeline is given, it is built here: an image is read as in training, and what reads annotations is
left out. mmengine's runner gives a model the ``data_preprocessor`` that stands beside it in the
config, its inferencers (0.10.7 and 0.10.12) do not; here they do too.
"""
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from mmengine.infer import BaseInferencer
from mmengine.registry import TRANSFORMS


def install() -> None:
    """Lets mmengine's inferencers take configs of this package; needed once a process."""
    start = BaseInferencer.__init__
    if hasattr(start, '__wrapped__'):
        return

    @functools.wraps(start)
    def start_with_our_configs(self: Any, *args: Any, **kwargs: Any) -> None:
        pipeline, model = self._init_pipeline, self._init_model
        self._init_pipeline = lambda cfg: _pipeline(cfg) or pipeline(cfg)
        self._init_model = lambda cfg, *rest: model(_whole_model(cfg), *rest)
        try:
            start(self, *args, **kwargs)
        finally:
            del self._init_pipeline, self._init_model

    BaseInferencer.__init__ = start_with_our_configs


def _whole_model(cfg: Any) -> Any:
    """The config, its model with the preprocessor that stands beside it."""
    if cfg and cfg.get('data_preprocessor') and isinstance(cfg.get('model'), dict):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return cfg


def _pipeline(cfg: Any) -> Callable[[Any], Any] | None:
    """The pipeline of the test set for single images; None if its first step is not ours."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    first, *others = dataset.get('pipeline') or [{}]
    if not str(first.get('type')).startswith('milan_mm.Load'):
        return None
    steps = [dict(step) for step in others if 'Load' not in str(step.get('type'))]
    keys = steps[-1].get('meta_keys') if steps else None
    if keys:  # an image has no place in a set
        steps[-1]['meta_keys'] = tuple(key for key in keys if key != 'img_id')
    return Compose([_Loader(TRANSFORMS.build(dict(first))), *steps])


class _Loader:
    """A path by the loader of the pipeline; an array (H, W, 3) in BGR as it is."""

    def __init__(self, load: Callable[[dict], dict]) -> None:
        self.load = load

    def __call__(self, given: str | np.ndarray | dict) -> dict:
        results: dict = given if isinstance(given, dict) else {
            'img_path' if isinstance(given, str) else 'img': given}
        if 'img' not in results:
            return self.load(results)
        size = results['img'].shape[:2]
        return dict(results, img_shape=size, ori_shape=size)
