# SPDX-License-Identifier: Apache-2.0
"""The quickstart's second half: a schedule for each task, from MILAN's encoder and from scratch."""
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...checkpoints import io
from ...errors import MilanError
from ...reports.curves import read_run
from ..run_tool import Job, ToolRunner

STARTS = ('milan', 'mae', 'scratch')
_QUICK = tuple(f'{loader}.{key}={value}' for loader in ('train_dataloader', 'val_dataloader')
               for key, value in (('num_workers', 0), ('persistent_workers', False)))


METRIC_WORDS = dict(top1='top-1 accuracy', bbox_mAP='box mAP', segm_mAP='mask mAP', mIoU='mIoU',
                    aAcc='pixel accuracy')


class Task(NamedTuple):
    """A task that an encoder is carried into.

    Attributes:
        title: for people.
        config: of the training.
        data: folder below the quickstart's that the config's ``data_root`` becomes.
        metrics: name in ``results.json`` -> (name in the log, factor to percent).
        length: option of ``milan train`` that sets how long it trains.
    """
    title: str
    config: str
    data: str
    metrics: dict[str, tuple[str, float]]
    length: str


TASKS = dict(
    finetune=Task('classification', 'configs/quickstart/finetune.py', 'data',
                  dict(top1=('accuracy/top1', 1.0)), '--epochs'),
    detection=Task('detection', 'configs/quickstart/detection.py', 'scenes/coco',
                   dict(bbox_mAP=('coco/bbox_mAP', 100.0), segm_mAP=('coco/segm_mAP', 100.0)),
                   '--epochs'),
    segmentation=Task('segmentation', 'configs/quickstart/segmentation.py', 'scenes/ade',
                      dict(mIoU=('mIoU', 1.0), aAcc=('aAcc', 1.0)), '--iters'))


def run_task(name: str, work: Path, tools: ToolRunner, starts: dict[str, Path | None],
             seed: int, quick: bool) -> None:
    """Trains a task from each start, with the same schedule, data and seed.

    A training ends with the evaluation on what was held out.

    Args:
        name: of the task.
        work: the quickstart's folder; runs go to ``WORK/<task>/<start>``.
        tools: that run.
        starts: start -> checkpoint of its encoder, or None for random weights.
        seed: of the head's weights, order and augmentation.
        quick: a smoke test.
    """
    task = TASKS[name]
    jobs: list[Job] = []
    for start, checkpoint in starts.items():
        run = work / name / start
        shutil.rmtree(run, ignore_errors=True)
        arguments = [task.config, '--data-root', work / task.data, '--work-dir', run, '--amp']
        if checkpoint is not None:
            arguments += ['--init-from', checkpoint]
        if quick:
            arguments += [task.length, 4 if task.length == '--iters' else 1]
        arguments += ['--cfg-options', f'randomness.seed={seed}', *(_QUICK if quick else ())]
        if name == 'detection':  # what was found on each image, for the intervals
            arguments.append(f'val_evaluator.outfile_prefix={run}/predictions')
        jobs.append(Job(f'{name}_{start}', 'train', arguments, f'from {start}'))
    tools.run_all(jobs, parallel=len(jobs))


def collect_task(name: str, work: Path) -> dict[str, dict[str, float]]:
    """What a task's evaluations measured: start -> metric -> percent; empty if it was not run."""
    task, found = TASKS[name], {}
    for start in STARTS:
        try:
            curves = read_run(work / name / start).curves
        except MilanError:
            continue
        # A detector that finds nothing at all gets no figure from mmdet: that is a precision of 0.
        found[start] = {
            ours: round(factor * float(curves[theirs][1][-1]), 2) if theirs in curves else 0.0
            for ours, (theirs, factor) in task.metrics.items()}
    return found


def last_checkpoint(run: Path) -> Path:
    """The last ``epoch_N.pth`` or ``iter_N.pth`` of a run.

    Raises:
        MilanError: if there is none.
    """
    found = io.last_checkpoint(run)
    if found is None:
        raise MilanError(f'no checkpoint in {run}: run the stage "{run.name}" first '
                         f'(--stage {run.name})')
    return found


def task_table(result: dict[str, Any], starts: Sequence[str] = STARTS) -> list[str]:
    """The tasks' figures, for a terminal; empty if none was run."""
    lines = []
    for name, task in TASKS.items():
        block = result.get(name) or {}
        for metric in task.metrics:
            if not any(metric in row for row in block.values()):
                continue
            cells = []
            for start in starts:
                row = block.get(start, {})
                text = f'{row[metric]:.1f}' if metric in row else '-'
                cells.append(text + (f' ±{row[metric + "_std"]:.1f}'
                                     if f'{metric}_std' in row else ''))
            words = f'{task.title}, {METRIC_WORDS[metric]}'
            lines.append(f'{words:32}' + ''.join(f'{c:>14}' for c in cells))
    if lines:
        lines = ['', 'held-out images after finetuning, percent',
                 f'{"from":32}' + ''.join(f'{start:>14}' for start in starts), *lines]
    return lines
