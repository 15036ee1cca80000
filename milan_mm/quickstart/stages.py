# SPDX-License-Identifier: Apache-2.0
"""The quickstart: five stages, each a public tool, each done once.

pictures -> teacher -> MILAN and MAE -> evaluation -> report
"""
import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional

from ..checkpoints.io import write_atomically
from ..errors import MilanError
from .pictures import make_pictures
from .report import write_report
from .results import collect_results, summarise_seeds
from .run_tool import ToolRunner

STAGES = ('pictures', 'teacher', 'milan', 'mae', 'eval', 'report')
ENCODERS = ('random', 'mae', 'milan', 'teacher')


class Plan(NamedTuple):
    """How much of everything.

    Attributes:
        variants: renders of one cut-out for training.
        teacher_steps: optimizer steps of CLIP.
        student_steps: optimizer steps of MILAN, and of MAE.
        batch_size: of the students.
    """
    variants: int = 4
    teacher_steps: int = 650
    student_steps: int = 700
    batch_size: int = 64


QUICK = Plan(variants=1, teacher_steps=12, student_steps=12)


class Settings(NamedTuple):
    """What the user asked for.

    Attributes:
        work: the folder that everything goes into.
        pictures: own pictures, or None for the demo's drawings.
        quick: a smoke test of everything instead of an experiment.
        seed: of this repetition.
    """
    work: Path
    pictures: Optional[str] = None
    quick: bool = False
    seed: int = 0

    @property
    def plan(self) -> Plan:
        return QUICK if self.quick else Plan()


def run_quickstart(work: Path, pictures: Optional[str], quick: bool, seeds: int, force: bool,
                   stages: Optional[List[str]], log: Callable[[str], None] = print) -> dict:
    """Runs the stages for every seed, then writes ``results.json`` and ``report.html``.

    Args:
        work: the folder that everything goes into; finished stages in it are not run again.
        pictures: a folder of own pictures, or None.
        quick: a smoke test.
        seeds: repetitions; of each, held-out pictures, teacher, weights and masks are others.
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
    results = []
    for seed in range(seeds):
        folder = work if seed == 0 else work / 'seeds' / str(seed)
        settings = Settings(folder, pictures, quick, seed)
        if seeds > 1:
            log(f'=== seed {seed} ({seed + 1} of {seeds}), in {folder}')
        run = Run(settings, log)
        if force:
            run.forget()
        run.stages(stages or STAGES)
        if 'eval' in run.done():
            results.append(collect_results(settings, run.seconds()))
    if len(results) < seeds:
        return {}
    result = results[0] if seeds == 1 else summarise_seeds(results)
    write_atomically(work / 'results.json',
                     lambda path: path.write_text(json.dumps(result, indent=2) + '\n'))
    if stages is None or 'report' in stages:
        log(f'report: {write_report(work)}')
    return result


class Run:
    """One repetition: knows what is finished, from ``state.json`` in its folder."""

    def __init__(self, settings: Settings, log: Callable[[str], None]) -> None:
        self.settings, self.log = settings, log
        self.work = settings.work
        self.tools = ToolRunner(self.work, log)
        self.state_file = self.work / 'state.json'

    def stages(self, wanted: List[str]) -> None:
        """Runs those of the stages that are wanted and not finished."""
        for number, name in enumerate(s for s in STAGES if s != 'report'):
            if name not in wanted:
                continue
            if name in self.done():
                self.log(f'[{number + 1}/{len(STAGES)}] {name}: finished before '
                         f'({self.seconds()[name]:.0f} s); --force starts over')
                continue
            self.log(f'[{number + 1}/{len(STAGES)}] {name}')
            start = time.time()
            getattr(self, name)()
            self._finish(name, time.time() - start)

    def pictures(self) -> None:
        s = self.settings
        make_pictures(self.work / 'data', s.pictures, variants=s.plan.variants, seed=s.seed,
                      log=self.log)

    def teacher(self) -> None:
        s = self.settings
        self.tools.run('teacher', 'train_clip.py', '--data', self.work / 'data/train', '--out',
                       self.work / 'teacher', '--steps', s.plan.teacher_steps, '--seed', s.seed)

    def milan(self) -> None:
        self._pretrain('milan', f'model.target_generator.pretrained={self.work / "teacher"}')

    def mae(self) -> None:
        self._pretrain('mae')

    def _pretrain(self, name: str, *options: str) -> None:
        s = self.settings
        pictures = read_meta(self.work)['sizes']['train_pictures']
        batch = min(s.plan.batch_size, pictures)
        epochs = max(1, round(s.plan.student_steps / (pictures // batch)))
        if s.quick:
            epochs = 1
            options += ('train_dataloader.num_workers=0',
                        'train_dataloader.persistent_workers=False')
        shutil.rmtree(self.work / name, ignore_errors=True)
        self.tools.run(
            name, 'train.py', f'configs/quickstart/{name}.py', '--data-root',
            self.work / 'data/train', '--work-dir', self.work / name, '--epochs', epochs,
            '--auto-scale-lr', '--cfg-options', f'randomness.seed={s.seed}',
            f'train_dataloader.batch_size={batch}',
            f'default_hooks.checkpoint.interval={epochs}', *options)

    def eval(self) -> None:
        styles = read_meta(self.work)['styles']
        shift = ['--shift', *(f'{style}__' for style in styles)] if len(styles) == 2 else []
        milan = last_checkpoint(self.work / 'milan')
        subjects = dict(
            random=[milan, '--random-weights', '--seed', self.settings.seed],
            mae=[last_checkpoint(self.work / 'mae')],
            milan=[milan],
            teacher=[self.work / 'teacher', '--teacher'])
        for name in ENCODERS:
            self.tools.run('eval', 'eval_features.py', *subjects[name], '--data',
                           self.work / 'data', '--crop-ratio', 1, '--workers', 0, '--out',
                           self.work / f'eval/{name}.json', *shift)

    def done(self) -> List[str]:
        """Finished stages, as long as no earlier one was finished with other settings."""
        finished = []
        for name, note in self._read().items():
            if note['key'] != self._key():
                break
            finished.append(name)
        return finished

    def seconds(self) -> Dict[str, float]:
        return {name: note['seconds'] for name, note in self._read().items()}

    def forget(self) -> None:
        self.state_file.unlink(missing_ok=True)

    def _finish(self, name: str, seconds: float) -> None:
        # What follows a stage that was done anew must be done anew as well.
        order = STAGES.index(name)
        kept = {k: v for k, v in self._read().items()
                if STAGES.index(k) < order and v['key'] == self._key()}
        kept[name] = dict(key=self._key(), seconds=round(seconds, 1))
        write_atomically(self.state_file, lambda path: path.write_text(json.dumps(kept, indent=1)))

    def _read(self) -> dict:
        try:
            return json.loads(self.state_file.read_text())
        except (OSError, ValueError):
            return {}

    def _key(self) -> str:
        s = self.settings
        source = str(Path(s.pictures).resolve()) if s.pictures else 'demo'
        return hashlib.sha256(repr((source, s.plan, s.seed)).encode()).hexdigest()[:16]


def read_meta(work: Path) -> dict:
    """``data/meta.json``.

    Raises:
        MilanError: if the stage that makes it was not run.
    """
    path = work / 'data/meta.json'
    if not path.is_file():
        raise MilanError(f'{path} is missing: run the stage "pictures" first (--stage pictures)')
    return json.loads(path.read_text(encoding='utf-8'))


def last_checkpoint(run: Path) -> Path:
    """The last ``epoch_N.pth`` of a run.

    Raises:
        MilanError: if there is none.
    """
    found = sorted(run.glob('epoch_*.pth'), key=lambda p: int(p.stem.split('_')[1]))
    if not found:
        raise MilanError(f'no checkpoint in {run}: run the stage "{run.name}" first '
                         f'(--stage {run.name})')
    return found[-1]
