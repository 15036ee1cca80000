# SPDX-License-Identifier: Apache-2.0
"""The runs: rungs of which the better half goes on, then the best against the default anew.

A run is a folder ``WORK/runs/<choice>_<steps>_seed<n>``, done once: what was stopped goes on where
it was. Hours are counted in seconds of finished runs, so that stopping costs none.
"""
import functools
import math
import shutil
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from ...checkpoints.io import last_checkpoint
from ...errors import MilanError
from ...reports.curves import read_run
from ..ablation.differences import flatten
from ..ablation.run import Seldom
from ..run_tool import ToolRunner
from ..steps import Once, StepStoppedError, held
from .choices import DEFAULT, Choice
from .config_file import config_text, merged
from .images import Split, write_list
from .measure import Judge
from .plan import LEAST_STEPS, SEEDS, Pace, fit_steps, make_rungs, refuse_too_few

_EPOCHS = 10  # of a run at least, so that its warm-up is in proportion to its steps


class Trial(NamedTuple):
    """A finished run.

    Attributes:
        choice: its name.
        rung: 0 and on; the last one has fresh seeds.
        steps: of it.
        seed: of weights, order, augmentation and masks.
        scores: of each image that measures, in percent.
        seconds: that it took.
    """
    choice: str
    rung: int
    steps: int
    seed: int
    scores: list[float]
    seconds: float

    @property
    def mean(self) -> float:
        return statistics.mean(self.scores)


class Asked(NamedTuple):
    """What is tuned.

    Attributes:
        config: that the choices change, as the user named it.
        continued: the same for runs that start from weights.
        options: changes that all runs have.
        hours: that all may take.
        seed: the first.
        epochs: of the config's own schedule.
        workers: processes that read images in a run; None for the config's.
        trust: read pickles of more than tensors among the weights to start from.
    """
    config: str
    continued: str
    options: dict[str, Any]
    hours: float
    seed: int
    epochs: int
    workers: int | None = None
    trust: bool = False


class Tuner:
    """Runs what is not finished.

    Args:
        asked: see :class:`Asked`.
        cfg: the default with its options.
        choices: of :func:`make_choices`.
        split: of the images.
        judge: that measures.
        work: the folder.
        log: receives lines.

    Attributes:
        failures: name of a choice -> why its run failed.
        best: name of the choice that went through the rungs best.
    """

    def __init__(self, asked: Asked, cfg: Config, choices: Sequence[Choice], split: Split,
                 judge: Judge, work: Path, log: Callable[[str], None] = print) -> None:
        self.asked, self.cfg, self.choices = asked, cfg, {one.name: one for one in choices}
        self.split, self.judge, self.work, self.log = split, judge, work, log
        self.rungs = make_rungs(len(choices))
        self.trials: list[Trial] = []
        self.failures: dict[str, str] = {}
        self.best = DEFAULT
        self.spent, self.fixed = 0., 0.
        self.seconds: dict[str, float] = {}  # a step of a choice
        loader, wrapper = cfg.train_dataloader, cfg.optim_wrapper
        self.update = loader.batch_size * wrapper.get('accumulative_counts', 1)
        self.most = max(LEAST_STEPS, asked.epochs * len(split.train) // self.update)
        self.contents = [flatten(cfg.to_dict()), split.key, judge.how.feature]

    def execute(self, on_rung: Callable[[], object]) -> list[Trial]:
        """All runs.

        Args:
            on_rung: called after each rung, for what is shown and written.

        Raises:
            MilanError: if the hours are too few, the default fails, or another process is at work
                here. Another choice that fails is left out.
        """
        with held(self.work / 'lock') as lock:
            tools = ToolRunner(self.work, self.log, keep_open=[lock])
            self._pilot(tools)
            alive = list(self.choices)
            for number in range(len(self.rungs) - 1):
                self._rung(tools, number, alive, alive, [self.asked.seed])
                alive = self._better(number, alive)
                on_rung()
            others = [name for name in alive if name != DEFAULT]
            if others:
                self.best = others[0]
                self._rung(tools, len(self.rungs) - 1, [DEFAULT, self.best], alive, [
                    self.asked.seed + 1 + i for i in range(SEEDS)])
        return self.trials

    def of_rung(self, number: int, name: str) -> list[Trial]:
        """The runs of a choice in a rung, by seed."""
        return [one for one in self.trials if one.rung == number and one.choice == name]

    def _pilot(self, tools: ToolRunner) -> None:
        """The default for a few steps: what a run takes besides its steps, and what a step."""
        once = self._once(self.choices[DEFAULT], LEAST_STEPS, self.asked.seed, 'pilot')
        if not once.done:
            self.log(f'measuring how fast a run of {LEAST_STEPS} steps is')
        self._do(tools, once, self.choices[DEFAULT], LEAST_STEPS, self.asked.seed)

    def _steps(self, number: int, alive: Sequence[str]) -> int:
        """Of a rung's runs; noted, so that a call that goes on has the same."""
        once = Once(self.work / f'rungs/{number}.json', dict(
            hours=self.asked.hours, choices=sorted(self.choices), contents=self.contents))
        if once.done:
            return once.read()['result']
        own = self.seconds[DEFAULT]
        weights = [self.seconds[name] / own if name in self.seconds else self.choices[name].weight
                   for name in alive]
        steps = fit_steps(self.asked.hours * 3600 - self.spent, Pace(self.fixed, own),
                          self.rungs[number:], weights, self.most)
        if number == 0:
            refuse_too_few(steps, self.asked.hours, self.spent, Pace(self.fixed, own), self.rungs,
                           weights)
        return once.attempt(lambda: max(LEAST_STEPS, steps))

    def _rung(self, tools: ToolRunner, number: int, names: Sequence[str], alive: Sequence[str],
              seeds: Sequence[int]) -> None:
        steps = self._steps(number, alive)
        runs = [(self.choices[name], seed) for seed in seeds for name in names]
        took: list[float] = []
        self.log(f'rung {number + 1} of {len(self.rungs)}: {len(runs)} runs of {steps} steps')
        for done, (choice, seed) in enumerate(runs, 1):
            once = self._once(choice, steps, seed)
            kept = once.done
            try:
                note = self._do(tools, once, choice, steps, seed)
            except StepStoppedError:
                raise
            except MilanError as error:
                if choice.name == DEFAULT:
                    raise
                self.failures[choice.name] = str(error).splitlines()[-1]
                self.log(f'  {choice.title}: FAILED: {self.failures[choice.name]}')
                continue
            took.append(note['seconds'])
            trial = Trial(choice.name, number, steps, seed, note['result']['scores'],
                          note['seconds'])
            self.trials.append(trial)
            left = statistics.mean(took) * (len(runs) - done) / 60
            before = ', finished before' if kept else ''
            self.log(f'  [{done}/{len(runs)}] {choice.title}: {trial.mean:.1f} '
                     f'({note["seconds"]:.0f} s{before}); {left:.0f} min left in this rung, '
                     f'{self.spent / 3600:.2f} of {self.asked.hours:g} h used')

    def _better(self, number: int, alive: Sequence[str]) -> list[str]:
        """The better half, best first; the default is always among it."""
        means = {one.choice: one.mean for one in self.trials if one.rung == number}
        ranked = sorted((name for name in alive if name in means), key=lambda name: -means[name])
        kept = ranked[:max(2, math.ceil(len(alive) / 2))]
        return kept if DEFAULT in kept else [*kept[:-1], DEFAULT]

    def _do(self, tools: ToolRunner, once: Once, choice: Choice, steps: int,
            seed: int) -> dict[str, Any]:
        """A run, if it is not done; gives its note and counts its seconds."""
        if not once.done:
            once.attempt(functools.partial(self._train, tools, once, choice, steps, seed))
        note = once.read()
        self.spent += note['seconds']
        self.seconds[choice.name] = note['result']['step']
        if choice.name == DEFAULT:
            self.fixed = max(0., note['seconds'] - note['result']['step'] * steps)
        return note

    def _once(self, choice: Choice, steps: int, seed: int, name: str = '') -> Once:
        folder = self.work / 'runs' / (name or f'{choice.name}_{steps}_seed{seed}')
        return Once(folder / 'step.json', dict(
            choice=choice, steps=steps, seed=seed, contents=self.contents), folder=folder)

    def _train(self, tools: ToolRunner, once: Once, choice: Choice, steps: int,
               seed: int) -> dict[str, Any]:
        """Trains and measures; keeps the scores, not the weights."""
        folder = once.note.parent
        shutil.rmtree(folder / 'train', ignore_errors=True)
        # Spread over the whole list, and the same for every choice.
        count = min(len(self.split.train), max(self.update, math.ceil(
            steps * self.update / _EPOCHS)))
        rows = [self.split.train[i * len(self.split.train) // count] for i in range(count)]
        images = write_list(folder / 'train.csv', [(path, '') for path in rows])
        epochs = max(1, round(steps * self.update / count))
        updates = max(1, count // self.update)
        config = folder / f'{choice.name}.py'
        config.write_text(config_text(self._base(choice), self._changes(choice), resolve=True))
        options = [f'randomness.seed={seed}', f'default_hooks.checkpoint.interval={epochs}',
                   f'default_hooks.logger.interval={max(1, min(10, updates))}']
        if self.asked.workers is not None:
            options += [f'train_dataloader.num_workers={self.asked.workers}',
                        f'train_dataloader.persistent_workers={self.asked.workers > 0}']
        start = ['--init-from', choice.init_from] if choice.init_from else []
        start += ['--trust-checkpoint'] if start and self.asked.trust else []
        tools.run(f'{folder.name}_train', 'train', config, '--data-root', images, '--work-dir',
                  folder / 'train', '--epochs', epochs, *start, '--cfg-options', *options,
                  title=choice.title, log=Seldom(self.log))
        checkpoint = last_checkpoint(folder / 'train')
        if checkpoint is None:
            raise MilanError(f'the training left no checkpoint in {folder / "train"}')
        scores = self.judge.scores(checkpoint)
        curves = read_run(folder / 'train').curves
        batches = self.cfg.optim_wrapper.get('accumulative_counts', 1)
        step = statistics.median(curves['time'][1]) * batches
        for file in (folder / 'train').glob('*.pth'):
            file.unlink()
        return dict(scores=scores, step=step)

    def _base(self, choice: Choice) -> str:
        return self.asked.continued if choice.init_from else self.asked.config

    def _changes(self, choice: Choice) -> dict[str, Any]:
        return merged(self.asked.options, choice.changes)
