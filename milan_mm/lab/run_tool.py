# SPDX-License-Identifier: Apache-2.0
"""Runs a tool of this project in a process of its own and shows how far it is."""
import collections
import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import MilanError
from ..resources import locate
from .steps import StepStoppedError

_SOURCE = Path(__file__).resolve().parents[2]  # of this milan_mm, for the tools too
_TRAINING = re.compile(r'(?:Epoch\(train\)\s+\[(\d+)\]|Iter\(train\)\s+)\[\s*(\d+)/(\d+)\]'
                       r'.*?eta: (\S+).*? loss: (\S+)')
_SHOWN = re.compile(r'batch: |WARNING - \d+ of \d+ images|tensors \(100 %\)')
_HEAD = re.compile(r'^\S+ \S+ - mmengine - (INFO|WARNING) - ')


class Job(NamedTuple):
    """A tool to run.

    Attributes:
        name: of its log.
        tool: as of :func:`find_tool`.
        arguments: of its command line.
        title: what its lines begin with.
    """
    name: str
    tool: str
    arguments: Sequence[Any]
    title: str = ''


class ToolRunner:
    """Starts tools, keeps their whole output in ``WORK/logs``, shows a line now and then.

    Args:
        work: the folder of the whole.
        log: receives what people should see.
        keep_open: file descriptors that the tools inherit, such as that of a lock.
    """

    def __init__(self, work: Path, log: Callable[[str], None],
                 keep_open: Sequence[int] = ()) -> None:
        self.logs, self.log, self.keep_open = work / 'logs', log, tuple(keep_open)
        self.running: set[subprocess.Popen] = set()
        self.stopped = False

    def run_all(self, jobs: Sequence[Job], parallel: int = 1) -> None:
        """Runs several tools, some of them at the same time.

        Networks this small keep one core busy and not two: two trainings side by side, each with
        its share of the cores, are done sooner than one after the other.

        Args:
            jobs: to run.
            parallel: how many at a time.

        Raises:
            MilanError: if one fails; those that run beside it are ended.
        """
        parallel = min(parallel, len(jobs))
        threads = None
        if parallel > 1:
            cores = int(os.environ.get('OMP_NUM_THREADS') or os.cpu_count() or 1)
            threads = max(1, cores // parallel)

        def one(job: Job) -> None:
            self.run(job.name, job.tool, *job.arguments, title=job.title, threads=threads)

        self.side_by_side([functools.partial(one, job) for job in jobs], parallel)

    def side_by_side(self, calls: Sequence[Callable[[], Any]], jobs: int,
                     on_result: Callable[[Any], None] = lambda result: None) -> None:
        """Makes calls in threads, ``jobs`` at a time; the first error ends what runs.

        Args:
            calls: to make.
            jobs: how many at a time.
            on_result: receives what each gives, in this thread.
        """
        with ThreadPoolExecutor(max(1, jobs)) as pool:
            pending = [pool.submit(call) for call in calls]
            try:
                for done in as_completed(pending):
                    on_result(done.result())
            except BaseException:
                for future in pending:
                    future.cancel()
                self.stop()
                raise

    def run(self, name: str, tool: str, *arguments: Any, title: str = '',
            threads: int | None = None, environment: dict[str, str] | None = None,
            log: Callable[[str], None] | None = None) -> None:
        """Runs a tool with the arguments.

        Args:
            name: of the log.
            tool: as of :func:`find_tool`.
            arguments: of its command line.
            title: what each line that is shown begins with.
            threads: for it to use; None for as many as this process may.
            environment: variables it gets besides.
            log: receives what people should see, instead of the runner's.

        Raises:
            MilanError: if it fails, with the last it said.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        record = self.logs / f'{name}.log'
        command = [*find_tool(tool), *map(str, arguments)]
        path = os.pathsep.join(filter(None, [str(_SOURCE), os.environ.get('PYTHONPATH')]))
        environment = {**os.environ, 'PYTHONPATH': path, 'PYTHON': sys.executable,
                       **(environment or {})}
        if threads is not None:
            environment['OMP_NUM_THREADS'] = str(threads)
        title = f'{title}: ' if title else ''
        last: collections.deque[str] = collections.deque(maxlen=8)
        with open(record, 'a', encoding='utf-8') as file, subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                errors='replace', env=environment, pass_fds=self.keep_open) as process:
            self.running.add(process)
            try:
                if self.stopped:
                    process.terminate()
                for line in process.stdout or ():
                    file.write(line)
                    if line.strip():
                        last.append(line.rstrip())
                    shown = readable(line, tool)
                    if shown:
                        (log or self.log)(f'      {title}{shown}')
            except BaseException:
                process.terminate()
                raise
            finally:
                self.running.discard(process)
        if process.returncode and self.stopped:
            raise StepStoppedError(f'{name}: stopped')
        if process.returncode:
            raise MilanError(f'{Path(tool).name} ended with exit code {process.returncode}; '
                             f'the whole output is in {record}. It last said:\n' + '\n'.join(last))

    def stop(self) -> None:
        """Ends what runs; for the thread that started the runs of others and is interrupted."""
        self.stopped = True
        for process in list(self.running):
            process.terminate()


def find_tool(tool: str) -> list[str]:
    """What starts a command of milan, a tool of the project by its file's name, or any script.

    Raises:
        MilanError: if there is none.
    """
    if (_SOURCE / f'milan_mm/cli/{tool.replace("-", "_")}.py').is_file():
        return [sys.executable, '-u', '-m', 'milan_mm', tool]
    path = locate(tool, 'tools')
    if path.is_file():
        return [*(['bash'] if path.suffix == '.sh' else [sys.executable, '-u']), str(path)]
    raise MilanError(f'no such tool: {tool}. Give a command of milan such as train, the name '
                     'of a file in tools/, or the path of a script of your own (.py or .sh)')


def readable(line: str, tool: str) -> str | None:
    """What of a tool's line people should see; None for what belongs in the log alone."""
    line = line.rstrip()
    if tool not in ('train', 'train.py', 'dist_train.sh'):
        noise = 'Warning' in line or 'warn' in line or _HEAD.match(line) or 'CUDA' in line
        return None if noise else line.split('\r')[-1]
    found = _TRAINING.search(line)
    if found:
        epoch, batch, batches, eta, loss = found.groups()
        measures = re.findall(r'(?:cos|mse)_\w+: \S+|importance_seen: \S+|images_per_s: \S+',
                              line)
        epoch = f'epoch {epoch} ' if epoch else ''
        return f'{epoch}[{batch}/{batches}]  eta {eta}  loss {loss}  {"  ".join(measures)}'
    return _HEAD.sub('', line) if _SHOWN.search(line) else None
