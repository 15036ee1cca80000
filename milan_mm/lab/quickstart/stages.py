# SPDX-License-Identifier: Apache-2.0
"""The quickstart: stages, each a step of public commands, done once.

images -> teacher -> MILAN and MAE -> evaluation -> finetuning, detection, segmentation

The report is written as soon as the evaluation is done, and again after each task.
"""
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ...checkpoints.io import write_atomically
from ...config.read import read_config
from ...errors import MilanError
from ..run_tool import Job, ToolRunner
from ..steps import Once, StepNotPossibleError, held, read_json
from .comparisons import ENCODERS
from .images import make_images
from .report import write_report
from .results import collect_results, summarise_seeds
from .scenes import make_all_scenes
from .tasks import STARTS, TASKS, last_checkpoint, run_task
from .teacher import check_teacher, choose_teacher, note_teacher, noted_teacher, options_of

STAGES = ('images', 'teacher', 'pretrain', 'eval', 'finetune', 'scenes', 'detection',
          'segmentation', 'report')
STUDENTS = ('milan', 'mae')
SHOWN = ('eval', 'finetune', 'detection', 'segmentation')  # what the report grows by
LATER = ('finetune', 'scenes', 'detection', 'segmentation')  # once, or with --full for each seed


def _config_of(student: str) -> str:
    return f'configs/quickstart/{student}.py'


CONFIGS = dict(pretrain=tuple(map(_config_of, STUDENTS)),  # that a stage trains by
               **{name: (task.config, ) for name, task in TASKS.items()})


class Plan(NamedTuple):
    """How much of everything.

    Attributes:
        variants: renders of one cut-out for training.
        teacher_steps: optimizer steps of CLIP.
        student_steps: optimizer steps of MILAN, and of MAE.
        batch_size: of the students.
        scenes: composed for training, and for the test.
    """
    variants: int = 4
    teacher_steps: int = 650
    student_steps: int = 700
    batch_size: int = 64
    scenes: tuple[int, int] = (4000, 400)


QUICK = Plan(variants=1, teacher_steps=12, student_steps=12, scenes=(32, 8))


class Settings(NamedTuple):
    """What the user asked for.

    Attributes:
        work: the folder that everything goes into.
        images: own images, or None for the demo's drawings.
        quick: a smoke test of everything instead of an experiment.
        seed: of this repetition.
        full: every task with every seed.
        coco: own images with boxes and masks, (annotation file, folder of images).
        ade: own images with label maps, in ADE20K's folders.
        teacher: a file, a folder or ``MODEL:TAG``; None takes the one that suits the images.
        train_teacher: train a small CLIP on the images.
        composition: of the demo's images, see :class:`~.composition.Composition`.
    """
    work: Path
    images: str | None = None
    quick: bool = False
    seed: int = 0
    full: bool = False
    coco: tuple[str, str] | None = None
    ade: str | None = None
    teacher: str | None = None
    train_teacher: bool = False
    composition: str = 'textured'

    @property
    def plan(self) -> Plan:
        """How much of everything."""
        return QUICK if self.quick else Plan()

    def of_steps(self) -> dict[str, Any]:
        """What decides the figures, as it is spelt in notes and messages."""
        source = str(Path(self.images).resolve()) if self.images else 'demo'
        return dict(images=source, quick=self.quick, seed=self.seed, full=self.full,
                    coco=self.coco, ade=self.ade, teacher=self.teacher,
                    train_teacher=self.train_teacher, **self._composed(), **self.plan._asdict())

    def _composed(self) -> dict[str, str]:
        # Not named where it is as ever, so that folders of earlier versions are still theirs.
        return {} if self.composition == 'textured' else dict(composition=self.composition)


def run_quickstart(asked: Settings, seeds: int, force: bool, stages: list[str] | None,
                   log: Callable[[str], None] = print) -> dict:
    """Runs the stages for every seed, then writes ``results.json`` and ``report.html``.

    Args:
        asked: what is wanted; finished stages in its folder are not run again.
        seeds: repetitions, on the same images; of each, weights, masks and order are others.
        force: start over.
        stages: only these; None for all.
        log: receives lines.

    Returns:
        What ``results.json`` holds; empty if the evaluation was not among the stages.

    Raises:
        MilanError: if a stage cannot be done; what is finished stays finished.
    """
    if seeds < 1:
        raise MilanError(f'--seeds must be at least 1, got {seeds}')
    unknown = sorted(set(stages or ()) - set(STAGES))
    if unknown:
        raise MilanError(f'unknown stages {unknown}; known are {list(STAGES)}')
    check_teacher(asked.teacher, asked.train_teacher)
    work, results, works = asked.work, list[dict](), list[Path]()
    with held(work / 'quickstart.lock') as lock:
        for seed in range(seeds):
            settings = asked if seed == 0 else asked._replace(
                work=work / 'seeds' / str(seed), seed=seed)
            if seeds > 1:
                log(f'=== seed {seed} ({seed + 1} of {seeds}), in {settings.work}')
            one = Repetition(settings, log, lock)
            one.check(force)
            wanted = [s for s in stages or STAGES if s not in LATER or seed == 0 or asked.full]
            grows = SHOWN[:1] if asked.quick else SHOWN
            for stage in one.do(wanted):
                if stage in grows and seeds == 1 and stages is None and one.measured:
                    publish(work, one.results(), log)
            if one.measured:
                results.append(one.results())
                works.append(settings.work)
        if len(results) < seeds:
            if 'report' in (stages or ()):
                raise MilanError(f'{work}: there is nothing to report before the stage "eval" is '
                                 'done; leave out --stage, or name the stages before it as well')
            return {}
        result = results[0] if seeds == 1 else summarise_seeds(results, works)
        publish(work, result, log, page=stages is None or 'report' in stages)
    return result


def publish(work: Path, result: dict, log: Callable[[str], None], page: bool = True) -> None:
    """Writes ``results.json``, and the page if it is wanted and would change."""
    text, path = json.dumps(result, indent=2) + '\n', work / 'results.json'
    if path.is_file() and path.read_text() == text and (work / 'report.html').is_file():
        return
    write_atomically(path, lambda part: part.write_text(text))
    if page:
        log(f'report: {write_report(work)}')


class Repetition:
    """All stages with one seed, each noted in ``WORK/steps``."""

    def __init__(self, settings: Settings, log: Callable[[str], None], lock: int) -> None:
        self.settings, self.log, self.work = settings, log, settings.work
        self.tools = ToolRunner(self.work, log, keep_open=[lock])
        self.steps = {name: Once(self.work / f'steps/{name}.json',
                                 dict(settings.of_steps(), **_contents(CONFIGS.get(name, ()))))
                      for name in STAGES if name != 'report'}

    def check(self, force: bool) -> None:
        """With ``force`` forgets what was done.

        Raises:
            MilanError: if it was done with other settings, naming them.
        """
        for step in self.steps.values():
            if force:
                step.forget()
            others = step.differences()
            if 'quick' in others:  # which sets all of the plan
                others = {name: words for name, words in others.items()
                          if name not in Plan._fields}
            if others:
                raise MilanError(f'{self.work} holds a quickstart with other settings: '
                                 f'{"; ".join(others.values())}. Start over with --force, or give '
                                 'another --work-dir')

    def do(self, wanted: list[str]) -> Iterator[str]:
        """Does those of the stages that are wanted and not finished, and names what it did."""
        for number, (name, step) in enumerate(self.steps.items(), start=1):
            if name not in wanted:
                continue
            title = f'[{number}/{len(STAGES)}] {name}'
            if step.done:
                self.log(f'{title}: finished before ({step.read()["seconds"]:.0f} s); --force '
                         'starts over')
                continue
            self.log(title)
            for later in list(self.steps.values())[number:]:
                later.forget()  # what follows a stage that is done anew must be done anew as well
            try:
                step.attempt(getattr(self, name))
            except StepNotPossibleError as reason:
                self.log(f'      skipped: {reason}')
            yield name

    def images(self) -> None:  # from here on: what each stage does
        s = self.settings
        make_images(self.work / 'data', s.images, variants=s.plan.variants, log=self.log,
                    composition=s.composition)

    def teacher(self) -> None:
        s = self.settings
        chosen = choose_teacher(s.teacher, s.train_teacher, read_meta(self.work))
        self.log(f'      {chosen.spec or "a small CLIP"}: {chosen.reason}')
        if chosen.spec is None:
            self._train_teacher()
        elif s.teacher:
            self.tools.run('teacher', 'doctor', '--teacher', chosen.spec)
        note_teacher(self.work, chosen)

    def _train_teacher(self) -> None:
        s = self.settings
        self.tools.run('teacher', 'train-clip', '--data-root', self.work / 'data/train', '--out',
                       self.work / 'teacher', '--steps', s.plan.teacher_steps, '--seed', s.seed)

    def pretrain(self) -> None:
        taught = options_of(noted_teacher(self.work).spec)
        self.tools.run_all([self._pretraining('milan', *taught), self._pretraining('mae')],
                           parallel=len(STUDENTS))

    def _pretraining(self, name: str, *options: str) -> Job:
        s = self.settings
        images = read_meta(self.work)['sizes']['train_images']
        batch = min(s.plan.batch_size, images)
        epochs = max(1, round(s.plan.student_steps / (images // batch)))
        if s.quick:
            epochs = 1
            options += ('train_dataloader.num_workers=0',
                        'train_dataloader.persistent_workers=False')
        shutil.rmtree(self.work / name, ignore_errors=True)
        return Job(name, 'train', [
            _config_of(name), '--data-root', self.work / 'data/train', '--work-dir',
            self.work / name, '--epochs', epochs, '--auto-scale-lr', '--amp', '--cfg-options',
            f'randomness.seed={s.seed}', f'train_dataloader.batch_size={batch}',
            f'default_hooks.checkpoint.interval={epochs}', *options], name)

    def eval(self) -> None:
        styles = read_meta(self.work)['styles']
        shift = ['--shift', *(f'{style}__' for style in styles)] if len(styles) == 2 else []
        milan = last_checkpoint(self.work / 'milan')
        subjects: dict[str, list] = dict(
            random=[milan, '--random-weights', '--seed', self.settings.seed],
            mae=[last_checkpoint(self.work / 'mae')],
            milan=[milan],
            teacher=['--teacher', noted_teacher(self.work).spec])
        self.tools.run_all([
            Job(f'eval_{name}', 'eval', [
                *subjects[name], '--data', self.work / 'data', '--crop-ratio', 1, '--workers', 0,
                '--out', self.work / f'eval/{name}.json', *shift]) for name in ENCODERS
        ], parallel=2)

    def finetune(self) -> None:
        self._task('finetune')

    def scenes(self) -> None:
        s = self.settings
        make_all_scenes(self.work / 'scenes', s.images, s.coco, s.ade, *s.plan.scenes,
                        log=self.log)

    def detection(self) -> None:
        self._task('detection')

    def segmentation(self) -> None:
        self._task('segmentation')

    def _task(self, name: str) -> None:
        task = TASKS[name]
        if not (self.work / task.data).is_dir():
            raise StepNotPossibleError(self._why_no_scenes(Path(task.data).name))
        run_task(name, self.work, self.tools,
                 {s: None if s == 'scratch' else last_checkpoint(self.work / s)
                  for s in STARTS}, self.settings.seed, self.settings.quick)

    def _why_no_scenes(self, kind: str) -> str:
        if 'scenes' in self.skipped():
            return self.skipped()['scenes']
        made = read_json(self.work / 'scenes/meta.json')
        if made:
            return made['skipped'][kind]
        raise MilanError(f'{self.work / "scenes"} is missing: run the stage "scenes" first '
                         '(--stage scenes)')

    def skipped(self) -> dict[str, str]:
        """Stages that could not be done with these images, and why."""
        notes = {name: step.read() for name, step in self.steps.items()}
        return {name: note['skipped'] for name, note in notes.items() if 'skipped' in note}

    @property
    def measured(self) -> bool:
        """Whether there are figures to show."""
        return self.steps['eval'].done

    def results(self) -> dict:
        """What ``results.json`` holds so far."""
        return collect_results(self.settings, self.seconds(), self.skipped())

    def seconds(self) -> dict[str, float]:
        """Of each stage that is finished."""
        return {name: step.read()['seconds'] for name, step in self.steps.items() if step.done}


def _contents(configs: tuple[str, ...]) -> dict[str, str]:
    """Of each config and its bases, short: what was trained with another one is not finished."""
    texts = {path: json.dumps(read_config(path).to_dict(), sort_keys=True, default=str)
             for path in configs}
    return {path: hashlib.sha256(text.encode()).hexdigest()[:8] for path, text in texts.items()}


def read_meta(work: Path) -> dict:
    """``data/meta.json``.

    Raises:
        MilanError: if the stage that makes it was not run.
    """
    meta = read_json(work / 'data/meta.json')
    if not meta:
        raise MilanError(f'{work}/data/meta.json is missing: run the stage "images" first '
                         '(--stage images)')
    return meta
