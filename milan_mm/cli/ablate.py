# SPDX-License-Identifier: Apache-2.0
"""Runs an ablation study: every cell with every seed, pretraining and evaluation.

A study is a file such as studies/paper.py: cells, that is configs that differ in one part from
the base, how each is trained, and what is measured. A killed study goes on with --resume; a cell
that fails does not end it, and makes the exit code 1. The work folder then holds study.html,
plot.png, table.csv, runs.csv and study.json.
"""
import argparse
import shlex
import signal
import sys
import time
from pathlib import Path

from ..errors import MilanError
from ..resources import locate
from . import options

EXAMPLES = """\
  milan ablate studies/paper.py --dry-run
  milan ablate studies/paper.py --data-root DIR --work-dir work_dirs/studies/mine
  milan ablate studies/paper.py --only masking_random loss_masked --resume"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('study', metavar='STUDY', help='File of the study, such as '
                        'studies/paper.py.')
    options.add(parser, '--work-dir', help='Folder for runs and results (default: '
                'work_dirs/studies/<name of the study>).')
    options.add(parser, '--data-root', help='Folder of your own images, DIR/<class>/<image>, for a '
                'study that takes some, such as studies/paper.py.')
    parser.add_argument('--seeds', type=int, metavar='N', help='Number of repetitions of each cell '
                        '(default: what the study says).')
    parser.add_argument('--jobs', type=int, metavar='N', help='Number of runs at a time (default: '
                        'one a GPU; without a GPU one a core, at most 4).')
    parser.add_argument('--only', nargs='+', metavar='CELL', help='Run these cells and the base.')
    parser.add_argument('--base', metavar='CELL', help='Compare the cells with this one (default: '
                        "the study's base).")
    parser.add_argument('--resume', action='store_true', help='Go on with a study that was '
                        'stopped: finished runs are kept, failed ones are tried again.')
    parser.add_argument('--dry-run', action='store_true', help='Show the cells, the hours and the '
                        'disk it will take, and stop.')


def run(args: argparse.Namespace) -> int:
    from ..lab.ablation.page import write_study
    from ..lab.ablation.run import StudyRunner
    from ..lab.ablation.study import read_study, with_base
    from ..lab.ablation.table import as_text
    # A polite kill ends the trainings too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.time()
    name = locate(args.study, 'studies').stem
    work = Path(args.work_dir or f'work_dirs/studies/{name}').resolve()
    study = with_base(read_study(args.study), args.base)
    runner = StudyRunner(study, work, args.seeds, args.only, args.jobs,
                         lambda line: print(line, flush=True), args.data_root)
    if args.data_root and not study.takes_images:
        raise MilanError(f'--data-root: {args.study} names no {{images}} in what it prepares')
    if args.dry_run:
        print(runner.forecast())
        return 0
    if runner.finished() and not args.resume:
        raise MilanError(f'{work} holds finished runs of this study: go on with --resume, or give '
                         'another --work-dir')
    command = shlex.join(['milan', *args.words])

    def write(page: bool = False) -> list:
        return write_study(runner, command, (time.time() - start) / 60, page)

    print(runner.forecast())
    try:
        runner.execute(on_record=write)
    except KeyboardInterrupt:
        print('stopped; go on with --resume', file=sys.stderr)
        return 130
    rows = write(page=True)
    print(f'\n{as_text(rows, study.metrics)}\n\n* the 95 % interval of the paired difference to '
          f'{study.base} leaves 0 out\n{(time.time() - start) / 60:.1f} minutes; page: '
          f'{work / "study.html"}')
    return 1 if any(row.failures for row in rows) else 0
