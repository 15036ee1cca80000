# SPDX-License-Identifier: Apache-2.0
"""What every benchmark shares: contenders that take turns, the machine, a table and a JSON file."""
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...checkpoints.io import write_atomically
from ...engine.hooks import peak_memory_mb
from ...errors import MilanError
from ...packages import FORKS, UPSTREAM, __version__, installed


class Ratio(NamedTuple):
    """How many times as fast one is as another.

    Attributes:
        median: of the ratios of the pairs, the two of a pair measured one after the other.
        least, most: the smallest and the largest of them.
    """
    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f'{self.median:.2f} ({self.least:.2f} to {self.most:.2f})'


def take_turns(contenders: Mapping[str, Callable[[], float]], rounds: int,
               warm_up: int = 1) -> dict[str, list[float]]:
    """Runs A B C A B C ..., so that whatever else the machine does meets all of them.

    Args:
        contenders: what to run; each gives its seconds.
        rounds: counted turns of each.
        warm_up: turns before them that are not counted: memory is allocated, code is compiled.

    Returns:
        The seconds of each, in the order taken.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(warm_up + rounds):
        for name, run in contenders.items():
            took = run()
            if i >= warm_up:
                seconds[name].append(took)
        if i >= warm_up:
            print(f'round {i - warm_up + 1} of {rounds}: ' + ', '.join(
                f'{name} {took[-1]:.3g} s' for name, took in seconds.items()), flush=True)
    return seconds


def faster(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Seconds of both, turn by turn; above 1 the first is faster."""
    ratios = [b / a for a, b in zip(ours, theirs)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """Processor, threads and versions; the card as well where one computes."""
    names = [line.partition(':')[2].strip() for line in _lines('/proc/cpuinfo')
             if line.startswith('model name')]
    facts: dict[str, Any] = dict(
        processor=names[0] if names else platform.processor() or platform.machine(),
        cores=os.cpu_count(), threads=torch.get_num_threads(), system=platform.system(),
        python=platform.python_version(), torch=torch.__version__, milan_mm=__version__,
        **{name: installed(name) for name in (*FORKS, *UPSTREAM) if installed(name)})
    if device is not None and device.type == 'cuda':
        facts.update(gpu=torch.cuda.get_device_name(device), cuda=torch.version.cuda)
    return facts


def in_words(facts: Mapping[str, Any]) -> str:
    """The machine in a line."""
    where = f'{facts["gpu"]}, ' if 'gpu' in facts else ''
    library = next((f', {name} {facts[name]}' for name in facts if 'mmpretrain' in name), '')
    return (f'{where}{facts["processor"]}, {facts["cores"]} cores, {facts["threads"]} threads, '
            f'torch {facts["torch"]}{library}')


def report(title: str, rows: Sequence[Mapping[str, Any]], json_file: str | Path | None = None,
           device: torch.device | None = None, **beside: Any) -> None:
    """Prints a table in Markdown under the machine it is of, and writes both as JSON.

    Args:
        title: what was measured, with all that decides it.
        rows: of the table; the columns are the first row's keys.
        json_file: where to write them; None for nowhere.
        device: where it was measured.
        **beside: more for the JSON file, such as each turn's seconds.
    """
    facts, columns = machine(device), list(rows[0])
    print(f'\n{title}\n{in_words(facts)}\n\n| {" | ".join(columns)} |\n|{"---|" * len(columns)}')
    for row in rows:
        print(f'| {" | ".join(cell(row.get(name)) for name in columns)} |')
    if json_file:
        content = dict(title=title, machine=facts, rows=list(rows), **beside)
        text = json.dumps(content, indent=1, default=str) + '\n'
        write_atomically(Path(json_file), lambda path: path.write_text(text, encoding='utf-8'))


def cell(value: Any) -> str:
    """A value as the table shows it."""
    if isinstance(value, float):
        return f'{value:.3g}' if abs(value) < 100 else f'{value:.0f}'
    return '-' if value is None else str(value)


def in_own_process(module: str, function: str, *arguments: Any) -> Any:
    """What a function of a module gives, in a process of its own, for the sake of its memory.

    Args:
        module: its whole name.
        function: its name; what it takes and gives can be written as JSON.
        *arguments: for it.

    Raises:
        MilanError: if it fails.
    """
    code = ('import json, sys; from importlib import import_module; import milan_mm.public; '
            'print(json.dumps(getattr(import_module(sys.argv[1]), sys.argv[2])'
            '(*json.loads(sys.argv[3]))))')
    done = subprocess.run([sys.executable, '-c', code, module, function, json.dumps(arguments)],
                          text=True, capture_output=True)
    if done.returncode:
        what = 'killed, out of memory' if done.returncode < 0 else done.stderr.strip()[-300:]
        raise MilanError(f'measuring {arguments[0]} failed ({what}); leave it out, or take smaller '
                         'images or a smaller --batch-size')
    return json.loads(done.stdout.splitlines()[-1])


def peak_mb(device: torch.device | None = None) -> float:
    """Largest memory so far: of the card, or of this process with all its libraries."""
    if device is not None and device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 2**20
    # ru_maxrss also counts what the process was before exec, which is its parent.
    peak = _field(f'/proc/{os.getpid()}/status', 'VmHWM')
    return peak / 1024 if peak else peak_memory_mb()


def available_bytes() -> float:
    """Memory that is free for use; infinite where the system does not say."""
    free = _field('/proc/meminfo', 'MemAvailable')
    return 1024. * free if free else float('inf')


def _field(path: str, key: str) -> int:
    """A number in KB of one of Linux's files; 0 elsewhere."""
    for line in _lines(path):
        if line.startswith(f'{key}:'):
            return int(line.split()[1])
    return 0


def _lines(path: str) -> tuple[str, ...]:
    return tuple(Path(path).read_text().splitlines()) if os.path.exists(path) else ()
