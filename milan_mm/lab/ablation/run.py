# SPDX-License-Identifier: Apache-2.0
"""Runs a study: every cell with every seed, some side by side, each once.

A run is a folder ``WORK/runs/<cell>/seed<n>``; ``step.json`` in it says whether it is finished, and
with which settings. So a study that was killed goes on where it was.
"""
import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...checkpoints.io import last_checkpoint
from ...errors import MilanError
from ...evaluation.paired import Comparison
from ...reports.curves import read_run
from ...resources import RESOURCES
from ..run_tool import ToolRunner
from ..steps import Once, StepStoppedError, held, read_json
from .differences import flatten
from .images import compare_on_images
from .study import Cell, Measurement, Step, Study, fill

_QUIET = 30.0  # seconds between two lines of one run


class Run(NamedTuple):
    """A cell with a seed, and its folder."""
    cell: Cell
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        return f'{self.cell.name}, seed {self.seed}'


class StudyRunner:
    """Runs what of a study is not finished.

    Args:
        study: of :func:`read_study`.
        work: the study's folder.
        seeds: repetitions; None for the study's.
        only: names of cells; None for all. The base is always among them.
        jobs: runs at a time; None for one a GPU, or without a GPU one a core, at most 4.
        log: receives lines.
        images: what ``{images}`` in the study stands for; None for nothing.

    Raises:
        MilanError: if a cell is not known, a number is below 1, or a cell's config or options
            cannot be read.

    Attributes:
        configs: of each cell, with its options.
    """

    def __init__(self, study: Study, work: Path, seeds: int | None = None,
                 only: Sequence[str] | None = None, jobs: int | None = None,
                 log: Callable[[str], None] = print, images: str | None = None) -> None:
        seeds = study.seeds if seeds is None else seeds
        self.jobs = default_jobs() if jobs is None else jobs
        if seeds < 1 or self.jobs < 1:
            raise MilanError(f'--seeds and --jobs must be at least 1, got {seeds} and {self.jobs}')
        unknown = sorted(set(only or ()) - set(study.cells))
        if unknown:
            raise MilanError(f'--only: the study has no {unknown}; its cells are '
                             f'{", ".join(study.cells)}')
        self.study, self.work, self.log = study, work, log
        self.images = str(Path(images).expanduser().resolve()) if images else ''
        # Seeds before cells: a study that is stopped has whole comparisons.
        self.runs = [Run(cell, seed, work / 'runs' / name / f'seed{seed}') for seed in range(seeds)
                     for name, cell in study.cells.items()
                     if not only or name in only or name == study.base]
        # With options as they will be: what does not fit is an error now and not in an hour.
        self.configs = {run.cell.name: run.cell.read(self._places(run)) for run in self.runs
                        if run.seed == 0}
        self.contents = {run.cell.name: flatten(run.cell.changed().to_dict())
                         for run in self.runs if run.seed == 0}

    def finished(self) -> list[dict]:
        """The records of runs that are done with the present settings."""
        return [record for record in self.records() if 'figures' in record]

    def records(self) -> list[dict]:
        """Finished and failed runs."""
        records = []
        for run in self.runs:
            note = self.step(run).read()
            if 'failed' in note:
                records.append(dict(cell=run.cell.name, seed=run.seed, failed=note['failed']))
            elif 'result' in note:
                records.append(dict(cell=run.cell.name, seed=run.seed, figures=note['result'],
                                    seconds=note['seconds']))
        return records

    def on_images(self, records: Sequence[dict]) -> dict[tuple[str, str], Comparison]:
        """Cells with one run, compared image by image; see :func:`compare_on_images`."""
        places = {(run.cell.name, run.seed): dict(self._places(run), checkpoint='')
                  for run in self.runs}
        return compare_on_images(self.study, self.work, records, places)

    def step(self, run: Run) -> Once:
        """A run as what is done once, and anew if anything that decides its figures changes."""
        return Once(run.folder / 'step.json', dict(
            cell=run.cell, config=self.contents[run.cell.name], seed=run.seed,
            prepare=self.study.prepare, train=self.study.train, measure=self.study.measure,
            images=self.images), folder=run.folder)

    def forecast(self) -> str:
        """The cells, and what is left to do: runs, hours and disk.

        From the runs that are finished, else from the study's own estimate.
        """
        finished = self.finished()
        minutes, disk = self.study.minutes, self.study.megabytes
        source = "the study's estimate"
        if finished:
            source = f'{len(finished)} finished runs'
            minutes = sum(r['seconds'] for r in finished) / len(finished) / 60
            disk = sum(_size(self.work / 'runs' / r['cell'] / f'seed{r["seed"]}')
                       for r in finished) / len(finished) / 1e6
        seeds = 1 + max(run.seed for run in self.runs)
        lines = [f'{self.study.title}: {len(self.configs)} cells x {seeds} seeds = '
                 f'{len(self.runs)} runs, {self.jobs} at a time, in {self.work}']
        for name in self.configs:
            cell = self.study.cells[name]
            base = ' (base)' if name == self.study.base else ''
            lines.append(f'  {name:28} {cell.title}{base}')
        left = len(self.runs) - len(finished)
        if minutes and disk:
            lines.append(f'{left} runs to do: about {left * minutes / self.jobs / 60:.1f} h and '
                         f'{left * disk / 1000:.1f} GB, by {source} ({minutes:.1f} min and '
                         f'{disk:.0f} MB a run), besides what is made before the cells')
        return '\n'.join(lines)

    def execute(self, on_record: Callable[[], object]) -> list[dict]:
        """Prepares, runs, and gives the records of all.

        Args:
            on_record: called after each run.

        Raises:
            MilanError: if a step before the cells fails, or another process is at work here.
                A cell that fails ends nothing.
        """
        with held(self.work / 'lock') as lock:
            tools = ToolRunner(self.work, self.log, keep_open=[lock])
            self._prepare(tools)
            self._run_all(tools, on_record)
        return self.records()

    def _prepare(self, tools: ToolRunner) -> None:
        places = dict(work=self.work, images=self.images, demo=RESOURCES / 'demo')
        for stage in self.study.steps_for(self.configs):
            steps = {step: self._once(step, places) for step in stage}
            left = [step for step, once in steps.items() if not once.done]
            if left:
                self.log(f'before the cells: {", ".join(step.name for step in left)}')
            tools.side_by_side([
                functools.partial(steps[step].attempt, functools.partial(
                    self._make, tools, step, places)) for step in left], self.jobs)

    def _once(self, step: Step, places: dict[str, Any]) -> Once:
        return Once(self.work / f'prepare/{step.name}.json', dict(
            tool=step.tool, arguments=[fill(text, places) for text in step.arguments]),
            makes=(Path(fill(step.makes, places)), ))

    def _make(self, tools: ToolRunner, step: Step, places: dict[str, Any]) -> None:
        tools.run(step.name, step.tool, *(fill(text, places) for text in step.arguments),
                  title=step.name, threads=self._threads(), log=Seldom(self.log))
        if not Path(fill(step.makes, places)).exists():
            raise MilanError(f'{step.name} is done and has not made {fill(step.makes, places)}, '
                             'as the study says it would')

    def _run_all(self, tools: ToolRunner, on_record: Callable[[], object]) -> None:
        todo = [run for run in self.runs if not self.step(run).done]
        before, seconds, slots = len(self.runs) - len(todo), [], list(range(self.jobs))
        if before:
            self.log(f'{before} of {len(self.runs)} runs were finished before')

        def tell(result: tuple[str, float]) -> None:
            words, took = result
            seconds.append(took)
            ahead = (len(todo) - len(seconds)) / self.jobs
            minutes = sum(seconds) / len(seconds) * ahead / 60
            self.log(f'[{before + len(seconds)}/{len(self.runs)}] {words} ({took:.0f} s); '
                     f'{minutes:.0f} min left')
            on_record()

        tools.side_by_side([functools.partial(self._run, tools, run, slots) for run in todo],
                           self.jobs, tell)

    def _run(self, tools: ToolRunner, run: Run, slots: list[int]) -> tuple[str, float]:
        """One cell with one seed; gives the words to show, and the seconds."""
        slot = slots.pop()
        start = time.time()
        try:
            figures = self.step(run).attempt(
                functools.partial(self._train_and_measure, tools, run, slot))
            words = ', '.join(f'{metric} {value:.4g}' for metric, value in figures.items())
        except StepStoppedError:
            words = 'stopped'
        except MilanError as error:
            words = f'FAILED: {str(error).splitlines()[-1]}'
        finally:
            slots.append(slot)
        return f'{run.name}: {words}', time.time() - start

    def _train_and_measure(self, tools: ToolRunner, run: Run, slot: int) -> dict[str, float]:
        places = self._places(run)
        if run.cell.changes:
            places['config'] = run.folder / f'{run.cell.name}.py'
            run.cell.changed().dump(places['config'])
        options = run.cell.given_options(places)
        arguments = [fill(text, places)
                     for text in (*self.study.train.arguments, *run.cell.arguments)]
        if (run.folder / 'train/last_checkpoint').is_file():
            arguments.append('--resume')
        how: dict[str, Any] = dict(
            title=run.name, threads=self._threads(), environment=self._devices(slot),
            log=Seldom(self.log))
        name = f'{run.cell.name}_seed{run.seed}'
        tools.run(f'{name}_train', self.study.train.tool, *arguments,
                  *(['--cfg-options', *options] if options else []), **how)
        places['checkpoint'] = last_checkpoint(run.folder / 'train')
        if places['checkpoint'] is None:
            raise MilanError(f'the training left no checkpoint in {run.folder / "train"}; the '
                             "study's train arguments must have it work in {run}/train")
        figures: dict[str, float] = {}
        for number, one in enumerate(self.study.measure):
            tools.run(f'{name}_measure{number or ""}', one.tool,
                      *(fill(text, places) for text in one.arguments), **how)
            figures.update(read_figures(one, places))
        return figures

    def _places(self, run: Run) -> dict[str, Any]:
        return dict(work=self.work, images=self.images, demo=RESOURCES / 'demo', run=run.folder,
                    seed=run.seed, config=run.cell.config)

    def _threads(self) -> int:
        cores = int(os.environ.get('OMP_NUM_THREADS') or os.cpu_count() or 1)
        return max(1, cores // self.jobs)

    def _devices(self, slot: int) -> dict[str, str]:
        return visible_devices(slot, self.jobs, torch.cuda.device_count(),
                               os.environ.get('CUDA_VISIBLE_DEVICES'))


def default_jobs() -> int:
    """One a GPU; on the CPU one a core, at most 4: small networks keep one core busy, not two."""
    return torch.cuda.device_count() or min(os.cpu_count() or 1, 4)


def visible_devices(slot: int, jobs: int, count: int, visible: str | None) -> dict[str, str]:
    """The share of the GPUs that is for one of the runs side by side.

    Args:
        slot: which of them, below ``jobs``.
        jobs: how many.
        count: GPUs this process sees.
        visible: its CUDA_VISIBLE_DEVICES, if there is one.
    """
    if jobs < 2 or count < 2:
        return {}
    names = visible.split(',') if visible else [str(i) for i in range(count)]
    share = max(1, count // jobs)
    first = slot * share % count
    return dict(CUDA_VISIBLE_DEVICES=','.join(names[first:first + share]))


def read_figures(one: Measurement, places: dict[str, Any]) -> dict[str, float]:
    """What a measurement found.

    Raises:
        MilanError: if a metric is not there.
    """
    source = Path(fill(one.reads, places))
    content = {name: curve[1][-1] for name, curve in read_run(source).curves.items()} \
        if source.is_dir() else read_json(source)
    figures = {}
    for title, place in one.metrics.items():
        value: Any = content.get(place) if source.is_dir() else content
        for part in () if source.is_dir() else place.split('.'):
            value = value.get(part) if isinstance(value, dict) else None
        if value is None:
            raise MilanError(f'{source} holds no {place!r}, which the study takes for {title!r}')
        figures[title] = float(value)
    return figures


class Seldom:
    """Hands on a line of a run every half minute; the whole is in its log."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self.log, self.last = log, time.time()

    def __call__(self, line: str) -> None:
        if time.time() - self.last >= _QUIET:
            self.last = time.time()
            self.log(line)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())
