# SPDX-License-Identifier: Apache-2.0
"""What a study file says.

A study is a Python config: cells (a config each, and what is changed in it), how each is trained
and measured, and what is made beforehand for all of them. Texts may hold ``{work}``, ``{images}``
and ``{demo}`` (the folder of that name that comes with the package), those of a run also ``{run}``,
``{seed}`` and ``{config}``, and after the training ``{checkpoint}``.
"""
import argparse
import copy
import string
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config, DictAction

from ...config.options import merge_options
from ...config.read import read_config
from ...errors import MilanError
from ..run_tool import find_tool

_STUDY: dict[str, Any] = dict(
    title=str, base=str, seeds=int, prepare=(list, tuple), train=dict, measure=(list, tuple),
    cells=dict, minutes=(int, float), megabytes=(int, float), unit=str)
_OPTIONAL = ('prepare', 'minutes', 'megabytes', 'unit')
_PLACES = ('work', 'images', 'demo', 'run', 'seed', 'config', 'checkpoint')


class Step(NamedTuple):
    """A tool that is run once before all cells.

    Attributes:
        name: of it.
        tool: file in ``tools/``, or the path of a script of one's own.
        arguments: of its command line.
        makes: path that exists when it is done.
    """
    name: str
    tool: str
    arguments: tuple[str, ...]
    makes: str


class Measurement(NamedTuple):
    """A tool that measures a trained cell.

    Attributes:
        tool: file in ``tools/``, or the path of a script of one's own.
        arguments: of its command line.
        reads: JSON file it writes, or work folder of a training whose last logged values count.
        metrics: column of the table -> dotted place in that file, or name of the logged scalar.
    """
    tool: str
    arguments: tuple[str, ...]
    reads: str
    metrics: dict[str, str]


class Cell(NamedTuple):
    """One line of the table.

    Attributes:
        name: of its folder.
        title: for people.
        group: the part of the method it changes.
        config: path that it stands on.
        changes: entries of the config that it has otherwise.
        options: entries set on the command line, such as where a teacher lies.
        arguments: of the training, besides the study's; what both set is the cell's.
    """
    name: str
    title: str
    group: str
    config: str
    changes: dict[str, Any]
    options: dict[str, str]
    arguments: tuple[str, ...] = ()

    def changed(self) -> Config:
        """Its config with its changes.

        Raises:
            MilanError: if there is none, or a change does not fit it.
        """
        cfg = read_config(self.config)
        merge_options(cfg, copy.deepcopy(self.changes), f'cell {self.name}, changes')
        return cfg

    def read(self, places: dict[str, Any]) -> Config:
        """Its config with its changes and options.

        Raises:
            MilanError: if there is none, or one of them does not fit it.
        """
        cfg = self.changed()
        # As on the command line, where '0' is a number.
        parser = argparse.ArgumentParser()
        parser.add_argument('--cfg-options', nargs='+', action=DictAction)
        given = self.given_options(places)
        merge_options(cfg, parser.parse_args(['--cfg-options', *given]).cfg_options
                      if given else None)
        return cfg

    def given_options(self, places: dict[str, Any]) -> list[str]:
        """Its options as the command line takes them."""
        return [f'{key}={fill(value, places)}' for key, value in self.options.items()]


class Study(NamedTuple):
    """A study.

    Attributes:
        title: for people.
        base: name of the cell that the others are compared with.
        seeds: repetitions of each cell.
        prepare: stages of steps; the steps of one may run side by side.
        train: tool and arguments that train a cell in the folder ``{run}``.
        measure: what is measured then.
        cells: by name.
        minutes: of one run, as an estimate until there are measured ones.
        megabytes: of disk of one run, as an estimate.
        unit: of all metrics.
    """
    title: str
    base: str
    seeds: int
    prepare: list[list[Step]]
    train: Step
    measure: list[Measurement]
    cells: dict[str, Cell]
    minutes: float | None
    megabytes: float | None
    unit: str

    @property
    def takes_images(self) -> bool:
        """Whether it uses images that the user names."""
        return any('{images}' in text for stage in self.prepare for step in stage
                   for text in step.arguments)

    def steps_for(self, cells: Collection[str]) -> list[list[Step]]:
        """The stages of :attr:`prepare`; of a part of the cells, without what the others need."""
        if set(cells) == set(self.cells):
            return self.prepare
        # Who uses what a step makes names its folder.
        texts = repr([self.train, self.measure, *(self.cells[name] for name in cells)])
        stages: list[list[Step]] = []
        for stage in reversed(self.prepare):
            used = [step for step in stage if step.makes.rpartition('/')[0] in texts]
            texts += repr([step.arguments for step in used])
            stages.insert(0, used)
        return stages

    @property
    def metrics(self) -> list[str]:
        """Columns of the table."""
        return [title for one in self.measure for title in one.metrics]


def read_study(path: str | Path) -> Study:
    """Reads a study file and checks it.

    Raises:
        MilanError: naming what is missing, unknown, of another type, or does not exist.
    """
    said = {key: value for key, value in read_config(path, 'studies').to_dict().items()
            if not key.startswith('_')}
    missing = [key for key in _STUDY if key not in said and key not in _OPTIONAL]
    if missing:
        raise MilanError(f'{path}: a study has {", ".join(_STUDY)}; missing here: '
                         f'{", ".join(missing)}')
    for key, kind in _STUDY.items():  # other names are the file's own
        if key in said and not isinstance(said[key], kind):
            raise MilanError(f'{path}: {key} must be a {kind}, got {said[key]!r}')
    try:
        study = Study(
            said['title'], said['base'], said['seeds'],
            [[_step(name, **step) for name, step in stage.items()]
             for stage in said.get('prepare', ())],
            _step('train', **said['train']),
            [Measurement(one['tool'], _texts(one['arguments']), one['reads'], dict(one['metrics']))
             for one in said['measure']],
            {name: _cell(name, **cell) for name, cell in said['cells'].items()},
            said.get('minutes'), said.get('megabytes'), said.get('unit', '%'))
    except (TypeError, KeyError, AttributeError) as error:
        raise MilanError(f'{path}: an entry is not as expected ({error}). A step has tool, '
                         'arguments and makes; a measurement tool, arguments, reads and metrics; '
                         'a cell config, and if wanted title, group, changes, options and '
                         'arguments'
                         ) from error
    _check(study, path)
    return study


def with_base(study: Study, base: str | None) -> Study:
    """The study with its cells compared with another one; None leaves it as it is.

    Raises:
        MilanError: if there is no such cell.
    """
    if base is not None and base not in study.cells:
        raise MilanError(f'--base {base}: this study has no such cell; its cells are '
                         f'{", ".join(study.cells)}')
    return study if base is None else study._replace(base=base)


def fill(text: str, places: dict[str, Any]) -> str:
    """``text`` with its ``{places}`` filled in.

    Raises:
        MilanError: for a place that is not known, or not yet.
    """
    text = str(text)
    try:
        wanted = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise MilanError(f'{text!r} in the study: {error}') from error
    unknown = sorted(wanted - set(places))
    if unknown:
        raise MilanError(f'{text!r} in the study names {unknown}; known here are '
                         f'{sorted(places)} (all in all {list(_PLACES)})')
    return text.format_map(places)


def check_places(study: Study) -> None:
    """Raises MilanError for a place in a text that cannot be filled when its time comes."""
    before, after = dict.fromkeys(_PLACES[:3]), dict.fromkeys(_PLACES)
    for step in (step for stage in study.prepare for step in stage):
        for text in (*step.arguments, step.makes):
            fill(text, before)
    for text in study.train.arguments:
        fill(text, dict.fromkeys(_PLACES[:-1]))
    for one in study.measure:
        for text in (*one.arguments, one.reads):
            fill(text, after)


def _step(name: str, tool: str, arguments: Any, makes: str = '') -> Step:
    return Step(name, tool, _texts(arguments), makes)


def _cell(name: str, config: str, title: str = '', group: str = '',
          changes: dict | None = None, options: dict | None = None, arguments: Any = ()) -> Cell:
    return Cell(name, title or name.replace('_', ' '), group, config, dict(changes or {}),
                dict(options or {}), _texts(arguments))


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(str(value) for value in values)


def _check(study: Study, path: str | Path) -> None:
    if study.base not in study.cells:
        raise MilanError(f'{path}: base is {study.base!r}, which is none of its cells: '
                         f'{", ".join(study.cells)}')
    if study.seeds < 1 or not study.metrics:
        raise MilanError(f'{path}: at least 1 seed and 1 metric are needed, got {study.seeds} and '
                         f'{len(study.metrics)}')
    tools = [study.train.tool, *(one.tool for one in study.measure),
             *(step.tool for stage in study.prepare for step in stage)]
    for tool in tools:
        find_tool(tool)
    check_places(study)
    for name in study.cells:
        if not name.replace('_', '').replace('-', '').isalnum():
            raise MilanError(f'{path}: a cell is named by letters, digits, _ and -, got {name!r}')
