# SPDX-License-Identifier: Apache-2.0
"""The decision, the table, the config to train with and the page."""
import functools
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from ...checkpoints.io import write_atomically
from ...reports.charts import Panel, round_ticks, save
from ...reports.page import write_page
from ...reports.provenance import commit, machine, versions
from ...reports.theme import LIGHT
from .choices import DEFAULT, Choice
from .config_file import config_text, merged
from .run import Trial, Tuner


class Paired(NamedTuple):
    """A choice against the default on the same images, with the same seeds.

    Attributes:
        mean: of the choice, in percent.
        difference: choice less default.
        error: two standard errors of it, paired over the images; each image's difference is its
            mean over the seeds.
        by_seed: the difference with each seed.
    """
    mean: float
    difference: float
    error: float
    by_seed: list[float]

    @property
    def better(self) -> bool:
        """Whether by more than the spread over images, and with every seed."""
        return self.difference > self.error and min(self.by_seed) > 0


class Decision(NamedTuple):
    """What to train with, and why.

    Attributes:
        choice: its name.
        final: the best against the default with fresh seeds; None if nothing came so far.
        words: the reason.
    """
    choice: str
    final: Paired | None
    words: str


def pair(trials: Sequence[Trial], defaults: Sequence[Trial]) -> Paired | None:
    """Compares runs with those of the default with the same seeds; None without a common one."""
    base = {one.seed: one for one in defaults}
    both = [(one, base[one.seed]) for one in trials if one.seed in base]
    if not both:
        return None
    by_image = [statistics.mean(differences) for differences in zip(*(
        [a - b for a, b in zip(one.scores, other.scores, strict=True)] for one, other in both))]
    error = 2 * statistics.stdev(by_image) / math.sqrt(len(by_image))
    return Paired(statistics.mean(one.mean for one, _ in both), statistics.mean(by_image), error,
                  [one.mean - other.mean for one, other in both])


def decide(tuner: Tuner) -> Decision:
    """The default, unless the best is better by more than the spread on fresh seeds."""
    last = len(tuner.rungs) - 1
    final = pair(tuner.of_rung(last, tuner.best), tuner.of_rung(last, DEFAULT))
    if final is None or tuner.best == DEFAULT:
        return Decision(DEFAULT, None, 'Nothing was measured that could replace the default.')
    title = tuner.choices[tuner.best].title
    figures = (f'{final.difference:+.1f} points ± {final.error:.1f} (two standard errors, paired '
               f'over {len(tuner.of_rung(last, DEFAULT)[0].scores)} images), '
               + ' and '.join(f'{value:+.1f}' for value in final.by_seed)
               + f' by seed, after {tuner.of_rung(last, DEFAULT)[0].steps} steps')
    if final.better:
        return Decision(tuner.best, final, f'Take {title}: {figures}. Both were trained anew with '
                        'seeds that had no part in the choice.')
    return Decision(DEFAULT, final, f'Keep the default. The best of the others, {title}, is not '
                    f'better by more than the spread: {figures}.')


def table(tuner: Tuner) -> list[list[str]]:
    """Lines of text, the first of them heads: a choice a line, a rung a column."""
    done = [number for number in range(len(tuner.rungs)) if tuner.of_rung(number, DEFAULT)]
    last = len(tuner.rungs) - 1
    heads = [('fresh seeds, ' if number == last else '')
             + f'{tuner.of_rung(number, DEFAULT)[0].steps} steps' for number in done]
    lines = [['', *heads, 's/step']]
    for name, choice in tuner.choices.items():
        cells = [_cell(tuner, number, name) for number in done]
        pace = f'{tuner.seconds[name]:.2f}' if name in tuner.seconds else ''
        lines.append([choice.title, *cells, 'failed' if name in tuner.failures else pace])
    return lines


def as_text(lines: Sequence[Sequence[str]]) -> str:
    """The table for a terminal."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return '\n'.join('  '.join(text.ljust(width) for text, width in zip(line, widths)).rstrip()
                     for line in lines)


def write_advice(tuner: Tuner, command: str, teacher: float | None) -> Decision:
    """Writes ``tuned.py``, ``tune.json``, ``plot.png`` and ``tune.html`` into the work folder."""
    decision, work = decide(tuner), tuner.work
    facts = dict(command=command, commit=commit(), hours=round(tuner.spent / 3600, 2),
                 machine=machine(), versions=versions())
    lines = table(tuner)
    _write(work / 'tuned.py', tuned_text(tuner, decision, command))
    _write(work / 'tune.json', json.dumps(dict(
        choice=decision.choice, words=decision.words, unit=tuner.judge.unit, teacher=teacher,
        final=decision.final._asdict() if decision.final else None, table=lines,
        split=tuner.split.words, failures=tuner.failures,
        runs=[dict(one._asdict(), scores=None, mean=one.mean) for one in tuner.trials],
        **facts), indent=1) + '\n')
    panels = [panel for number in range(len(tuner.rungs)) if (panel := _panel(tuner, number))]
    save(panels, work / 'plot.png', columns=2)
    rows = [('command', command), ('commit', facts['commit'] or 'not a clone'),
            ('hours', str(facts['hours'])), ('images', tuner.split.words),
            *((name, ', '.join(f'{key} {value}' for key, value in part.items()))
              for name, part in (('machine', machine()), ('versions', versions())))]
    write_page(work / 'tune.html', 'tune', words=decision.words, unit=tuner.judge.unit,
               teacher=teacher, lines=lines, panels=panels, failures=[
                   (tuner.choices[name].title, why) for name, why in tuner.failures.items()],
               config=(work / 'tuned.py').read_text(encoding='utf-8'), facts=rows)
    return decision


def tuned_text(tuner: Tuner, decision: Decision, command: str) -> str:
    """The config to train with: the reason and the figures as comments before it."""
    choice = tuner.choices[decision.choice]
    changes = merged(tuner.asked.options, choice.changes)
    comments = [_one_line(f'Written by: {command}'), *_wrapped(decision.words),
                f'{tuner.judge.unit}; {tuner.split.words}.',
                *(_one_line(line) for line in as_text(table(tuner)).splitlines()),
                'Train with it: milan train THIS_FILE --data-root DIR']
    base = tuner.asked.continued if choice.init_from else tuner.asked.config
    return config_text(base, merged(changes, start_of(choice, tuner.asked.trust)), comments)


def start_of(choice: Choice, trust: bool) -> dict[str, Any]:
    """What a config says of the weights that a choice starts from."""
    if not choice.init_from:
        return {}
    if 'align' not in choice.name:
        trusted = dict(trust_init_from=True) if trust else {}
        return dict(model=dict(init_from=choice.init_from, **trusted))
    start = dict(type='milan_mm.PretrainedViT', checkpoint=choice.init_from)
    return dict(model=dict(backbone=dict(init_cfg=dict(start, trust=True) if trust else start)))


def _cell(tuner: Tuner, number: int, name: str) -> str:
    found = pair(tuner.of_rung(number, name), tuner.of_rung(number, DEFAULT))
    if found is None:
        return ''
    return f'{found.mean:.1f}' if name == DEFAULT else (
        f'{found.mean:.1f} ({found.difference:+.1f} ± {found.error:.1f})')


def _panel(tuner: Tuner, number: int) -> Panel | None:
    """Differences to the default in a rung, with two standard errors."""
    pairs = {name: found for name in tuner.choices if name != DEFAULT and (found := pair(
        tuner.of_rung(number, name), tuner.of_rung(number, DEFAULT)))}
    if not pairs:
        return None
    rows = [(tuner.choices[name].title, found) for name, found in pairs.items()]
    steps = tuner.of_rung(number, DEFAULT)[0].steps
    fresh = ', fresh seeds' if number == len(tuner.rungs) - 1 else ''
    return Panel(f'Points above the default, {steps} steps{fresh}',
                 functools.partial(_draw, rows),
                 '; '.join(f'{title} {found.difference:+.1f} ± {found.error:.1f}'
                           for title, found in rows), size=(6.0, 0.7 + 0.34 * len(rows)))


def _draw(rows: Sequence[tuple[str, Paired]], axes: Axes) -> None:
    for y, (_, found) in enumerate(rows):
        colour = LIGHT['milan' if found.better else 'random']
        axes.plot([found.difference - found.error, found.difference + found.error], [y, y],
                  color=colour)
        axes.plot(found.difference, y, 'o', color=colour, markersize=7)
    axes.axvline(0, color=LIGHT['line'], linewidth=1.5)
    axes.set_yticks(range(len(rows)), [title for title, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(False, axis='y')
    axes.grid(True, axis='x')
    axes.xaxis.set_major_locator(round_ticks(5))


def _wrapped(text: str) -> list[str]:
    words, lines = text.split(), ['']
    for word in words:
        if len(lines[-1]) + len(word) > 94:
            lines.append('')
        lines[-1] = f'{lines[-1]} {word}'.strip()
    return lines


def _one_line(text: str) -> str:
    return ' '.join(text.split('\n'))


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda part: part.write_bytes(text.encode('utf-8', 'replace')))
