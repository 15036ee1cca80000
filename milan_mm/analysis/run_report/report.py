# SPDX-License-Identifier: Apache-2.0
"""The page of a run: what it reached, its curves, a few images, its config, what to do next."""
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from ...checkpoints.io import last_checkpoint
from ...config.read import read_config
from ...errors import MilanError
from ...reports.charts import Panel, Series, curves
from ...reports.curves import RunCurves, read_run
from ...reports.page import write_page
from ...structures import pair
from ..visualization.tiles import TileRow
from .gallery import pretraining_rows, some_images, task_rows

TASKS = dict(mmdet='detection', mmseg='segmentation')  # by the scope; others are classification
MEASURES = {
    'accuracy/top1': ('top-1 accuracy', 1), 'accuracy/top5': ('top-5 accuracy', 1),
    'coco/bbox_mAP': ('box mAP', 100), 'coco/segm_mAP': ('mask mAP', 100), 'mIoU': ('mIoU', 1),
    'aAcc': ('pixel accuracy', 1), 'mAcc': ('mean accuracy of classes', 1)}
"""What an evaluation logs: what to call it, and the factor to percent, the headline's first."""
_VERSIONS = ('Python', 'PyTorch', 'TorchVision', 'MMEngine', 'GPU 0')


def write_run_report(work: str | Path, out: str | Path | None = None, *,
                     images: str | Path | None = None, most: int = 4, teacher: str | None = None,
                     device: str | torch.device = 'cpu', trust: bool = False) -> tuple[Path, str]:
    """Writes ``WORK/report.html`` from what a training left there.

    Args:
        work: work folder of a pretraining, a finetuning, a detector or a segmentor.
        out: path of the page, if another.
        images: shown, instead of some of the run's own.
        most: so many.
        teacher: where the teacher of a pretraining is now.
        device: to compute on.
        trust: see :func:`read_checkpoint`.

    Returns:
        The page, and why it shows no images, or ''.

    Raises:
        MilanError: if no training left anything there.
    """
    work = Path(work).expanduser()
    run, config = read_run(work), _config_file(work)
    cfg = read_config(config)
    model = cfg.get('model') or {}
    task = ('pretraining' if 'target_generator' in model
            else TASKS.get(cfg.get('default_scope'), 'classification'))
    checkpoint = last_checkpoint(work)
    rows: list[TileRow] = []
    legend: list[tuple[str, str]] = []
    note = 'the run has written no checkpoint yet'
    if checkpoint is not None:
        try:
            paths = some_images(cfg, images, most)
            if task == 'pretraining':
                rows = pretraining_rows(checkpoint, paths, teacher, torch.device(device), trust)
            else:
                rows, legend = task_rows(cfg, checkpoint, paths, torch.device(device), trust)
            note = ''
        except MilanError as error:
            note = str(error)
    page = write_page(
        out or work / 'report.html', 'run', work=str(work), task=task,
        headline=headline(run, cfg, checkpoint), lead=_lead(run), curves=panels(run, cfg),
        rows=rows, legend=legend, note=note, facts=facts(run, cfg, work, checkpoint),
        config=config.read_text(encoding='utf-8'), config_name=config.name,
        commands=next_steps(task, work, config, checkpoint))
    return page, note


def headline(run: RunCurves, cfg: Config, checkpoint: Path | None) -> str:
    """What was reached, and after how much of the training."""
    after = f'after {_progress(run, cfg, checkpoint)}'
    for key, (name, factor) in MEASURES.items():
        if key in run.curves:
            return f'{factor * run.curves[key][1][-1]:.1f} % {name} {after}'
    for key, words in (('cos_masked', 'Cosine {:.2f} to the teacher on masked patches'),
                       ('mse_masked', 'Squared error {:.2f} of masked patches')):
        if key in run.curves:
            return f'{words.format(run.curves[key][1][-1])} {after}'
    return f'Loss {run.curves["loss"][1][-1]:.3g} {after}' if 'loss' in run.curves else after


def panels(run: RunCurves, cfg: Config) -> list[Panel]:
    """The curves that are worth looking at, as far as they are there."""

    def of(key: str, label: str, colour: str = 'milan', factor: float = 1) -> list[Series]:
        steps, values = run.curves.get(key, ([], np.array([])))
        return [Series(label, colour, steps, factor * values)] if len(steps) else []

    over = 'epochs' if _by_epoch(cfg) else 'steps'
    drawn = [curves('Loss', '', of('loss', 'loss')),
             curves('Cosine to the target', '1 is a perfect prediction',
                    of('cos_visible', 'patches seen') + of('cos_masked', 'patches masked', 'mae')),
             curves('Squared error', '0 is a perfect prediction',
                    of('mse_visible', 'patches seen') + of('mse_masked', 'patches masked', 'mae')),
             *(curves(name if name == 'mIoU' else f'{name[0].upper()}{name[1:]}',
                      f'in the evaluation, over {over}',
                      of(key, name, 'milan', factor), percent=True, include=(0, ), over=over)
               for key, (name, factor) in MEASURES.items()),
             curves('Importance seen', 'share of the teacher\'s attention on patches shown',
                    of('importance_seen', 'seen', 'teacher', 100), percent=True, include=(0, )),
             curves('Learning rate', '', of('lr', 'learning rate', 'random')),
             curves('Norm of the gradient', '', of('grad_norm', 'norm', 'random')),
             curves('Images a second', '', of('images_per_s', 'images', 'random'), include=(0, ))]
    return [one for one in drawn if one is not None]


def facts(run: RunCurves, cfg: Config, work: Path,
          checkpoint: Path | None) -> list[tuple[str, list[tuple[str, str]]]]:
    """What was run, as titled lists of names and values; of what is not known, nothing."""
    model, train = cfg.get('model') or {}, cfg.get('train_dataloader') or {}
    backbone = model.get('backbone') or {}
    arch = backbone.get('arch')
    found: dict[str, dict[str, Any]] = dict(
        Model=dict(algorithm=_short(model.get('type')), encoder=(
            arch if isinstance(arch, str) else f'{arch["num_layers"]} blocks, '
            f'{arch["embed_dims"]} wide' if isinstance(arch, Mapping) else None),
            pixels=_size(backbone.get('img_size')), patches=_size(backbone.get('patch_size')),
            target=_short((model.get('target_generator') or {}).get('type')),
            neck=_short((model.get('neck') or {}).get('type')),
            masks=_short((model.get('mask_generator') or {}).get('type'))),
        Training=dict(
            done=_progress(run, cfg, checkpoint), batch=train.get('batch_size'),
            data=cfg.get('data_root') or (train.get('dataset') or {}).get('data_root'),
            checkpoint=checkpoint and checkpoint.name,
            **{'images a second': _median(run, 'images_per_s'),
               'memory, MB': _median(run, 'memory') or _median(run, 'memory_mb'),
               'images that cannot be decoded': _unreadable(work)}),
        Versions=_versions(work))
    return [(title, [(name, str(value)) for name, value in pairs.items() if value])
            for title, pairs in found.items() if any(pairs.values())]


def next_steps(task: str, work: Path, config: Path,
               checkpoint: Path | None) -> list[dict[str, str]]:
    """Commands that take it further."""
    if checkpoint is None:
        return [dict(why='Go on with the training',
                     command=f'milan train {config} --work-dir {work} --resume')]
    if task == 'pretraining':
        return [
            dict(why='Play with it on a local page',
                 command=f'milan explore {checkpoint} --images DIR'),
            dict(why='k-NN and linear probe on labelled images, DIR/<class>/<images>',
                 command=f'milan eval {checkpoint} --data DIR'),
            dict(why='Features of any folder of images',
                 command=f'milan extract {checkpoint} --data DIR --out features.npz'),
            dict(why='Finetune it on your own classes',
                 command='milan train configs/classification/own_finetune.py '
                 f'--data-root DIR --init-from {checkpoint}')]
    steps = [dict(why='Evaluate it again on its test set',
                  command=f'milan test {config} {checkpoint}'),
             dict(why='Predict for images of your own',
                  command=f'milan predict {config} {checkpoint} IMAGES... --out DIR')]
    if task == 'classification':
        steps.append(dict(why='Measure it on corrupted images', command=(
            f'milan robustness {config} {checkpoint} --suite corruptions --data DIR --out DIR')))
    return steps


def _config_file(work: Path) -> Path:
    """The one beside the checkpoints, or that of the last start where there are several."""
    beside = sorted(work.glob('*.py'))
    found = beside if len(beside) == 1 else sorted(work.glob('*/vis_data/config.py')) or beside
    if not found:
        raise MilanError(f'{work} holds no config of a training; expected a work folder, as milan '
                         'train leaves it')
    return found[-1]


def _by_epoch(cfg: Config) -> bool:
    train = cfg.get('train_cfg') or {}
    return bool(train.get('by_epoch', 'max_epochs' in train))


def _progress(run: RunCurves, cfg: Config, checkpoint: Path | None) -> str:
    unit = 'epoch' if _by_epoch(cfg) else 'iter'
    steps, values = run.curves.get(unit, run.curves['loss'])
    done = (values if unit in run.curves else steps)[-1]
    if checkpoint is not None and checkpoint.stem.startswith(f'{unit}_'):
        done = max(done, int(checkpoint.stem.rpartition('_')[2]))  # not every step is logged
    planned = (cfg.get('train_cfg') or {}).get(f'max_{unit}s')
    words = dict(epoch='epochs', iter='steps')[unit]
    if planned and done < planned:
        return f'{done:.0f} of {planned} {words}'
    return f'{done:.0f} {words if done != 1 else words[:-1]}'


def _lead(run: RunCurves) -> str:
    """From where the loss came, and the best of what was evaluated more than once."""
    parts = []
    if 'loss' in run.curves:
        values = run.curves['loss'][1]
        if len(values) > 1:
            parts.append(f'The loss went from {values[0]:.3g} to {values[-1]:.3g}.')
    for key, (name, factor) in MEASURES.items():
        if key in run.curves and len(run.curves[key][1]) > 1:
            parts.append(f'The best {name} was {factor * np.nanmax(run.curves[key][1]):.1f} %.')
    return ' '.join(parts)


def _median(run: RunCurves, key: str) -> str:
    values = run.curves.get(key, ((), ()))[1]
    return f'{np.median(values):,.4g}' if len(values) else ''


def _unreadable(work: Path) -> int:
    path = work / 'unreadable_images.txt'
    return len(path.read_text(errors='replace').splitlines()) if path.is_file() else 0


def _versions(work: Path) -> dict[str, str]:
    """What mmengine wrote at the head of the last log."""
    logs = sorted(work.glob('*/*.log'))
    if not logs:
        return {}
    with open(logs[-1], encoding='utf-8', errors='replace') as file:
        head = file.read(20000)
    found = {name: re.search(rf'^ +{name}: ([^\s,]+[^(\n]{{0,40}})', head, re.M)
             for name in _VERSIONS}
    return {name: match[1].strip() for name, match in found.items() if match}


def _size(sides: Any) -> str:
    if sides is None:
        return ''
    return ' × '.join(map(str, pair(sides)))


def _short(name: Any) -> str:
    return str(name or '').rpartition('.')[2]
