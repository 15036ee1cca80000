# SPDX-License-Identifier: Apache-2.0
"""What a classifier said of each image, and a segmentor of each pixel, kept when it is evaluated.

mmpretrain's and mmseg's metrics keep none of it. With it two trainings can be compared on the same
images; see :mod:`milan_mm.evaluation.paired`.
"""
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..registry import HOOKS
from .hits import write_areas, write_hits


@HOOKS.register_module()
class ImageHitsHook(Hook):
    """Writes ``hits.npz`` into the work folder after each evaluation, over the former one.

    Of a classifier the labels, see :mod:`milan_mm.evaluation.hits`; of a segmentor for each image
    the pixels of each class, see :func:`milan_mm.evaluation.hits.write_areas`. Of other models
    nothing.
    """
    priority = 'LOW'

    def __init__(self) -> None:
        self.rows: list[tuple[str, Any]] = []

    def before_val_epoch(self, runner: Runner) -> None:
        self.rows = []

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                       outputs: Sequence[Any] | None = None) -> None:
        for sample in outputs or ():
            name = sample.metainfo.get('img_path')
            if name is None:
                continue
            if 'pred_label' in sample and 'gt_label' in sample:
                self.rows.append((name, (int(sample.gt_label[0]), int(sample.pred_label[0]))))
            elif 'pred_sem_seg' in sample and 'gt_sem_seg' in sample:
                classes = len(runner.val_dataloader.dataset.metainfo['classes'])
                self.rows.append((name, areas(sample.gt_sem_seg.data.cpu().numpy(),
                                              sample.pred_sem_seg.data.cpu().numpy(), classes)))

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        # Samplers fill the last batch of several processes up with images seen before.
        found = {name: row for rows in all_gather_object(self.rows) for name, row in rows}
        self.rows = []
        if not found or not is_main_process():
            return
        root = runner.val_dataloader.dataset.data_root or os.curdir
        names = [os.path.relpath(name, root) for name in found]
        path = Path(runner.work_dir) / 'hits.npz'
        rows = list(found.values())
        if isinstance(rows[0], tuple):
            classes = runner.val_dataloader.dataset.metainfo.get('classes', ())
            labels, given = zip(*rows)
            write_hits(path, dict(names=names, classes=list(classes), labels=labels, top1=given))
        else:
            write_areas(path, names, np.stack(rows))

    before_test_epoch, after_test_iter = before_val_epoch, after_val_iter


def areas(truth: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """(3, classes) pixels that are the class and were named so, that are it, that were named so.

    Pixels whose true label is none of the classes count nowhere.
    """
    known = (truth >= 0) & (truth < classes)
    truth, found = truth[known], found[known]
    return np.stack([np.bincount(part, minlength=classes)[:classes]
                     for part in (truth[truth == found], truth, found)])
