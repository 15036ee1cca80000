# SPDX-License-Identifier: Apache-2.0
"""Runs an ablation study: every cell with every seed, pretraining and evaluation.

A study is a file such as studies/paper.py: cells, that is configs that differ in one part from
the base, how each is trained, and what is measured. A killed study goes on with --resume; a cell
that fails does not end it. WORK_DIR then holds study.html, plot.png, table.csv, runs.csv and
study.json.
"""
import argparse
import shlex
import signal
import sys
import time
from pathlib import Path

from milan_mm.engine.cli import run_tool
from milan_mm.errors import MilanError
from milan_mm.lab.ablation.page import write_study
from milan_mm.lab.ablation.run import StudyRunner
from milan_mm.lab.ablation.study import read_study
from milan_mm.lab.ablation.table import as_text


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', metavar='STUDY.py', help='such as studies/paper.py')
    parser.add_argument('--work-dir', metavar='DIR', help='(default: work_dirs/studies/<name>)')
    parser.add_argument('--seeds', type=int, metavar='N', help='repetitions of each cell (default: '
                        'what the study says)')
    parser.add_argument('--jobs', type=int, metavar='J', help='runs at a time (default: one a GPU; '
                        'without a GPU one a core, at most 4)')
    parser.add_argument('--only', nargs='+', metavar='CELL', help='these cells and the base')
    parser.add_argument('--images', metavar='DIR', help='your own, DIR/<class>/<image>, for a '
                        'study that takes some, such as studies/paper.py')
    parser.add_argument('--resume', action='store_true',
                        help='go on with a study that was stopped: finished runs are kept, '
                        'failed ones are tried again')
    parser.add_argument('--dry-run', action='store_true',
                        help='show the cells, the hours and the disk it will take')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    # A polite kill ends the trainings too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.time()
    work = Path(args.work_dir or f'work_dirs/studies/{Path(args.study).stem}').resolve()
    study = read_study(args.study)
    runner = StudyRunner(study, work, args.seeds, args.only, args.jobs,
                         lambda line: print(line, flush=True), args.images)
    if args.images and not study.takes_images:
        raise MilanError(f'--images: {args.study} names no {{images}} in what it prepares')
    if args.dry_run:
        print(runner.forecast())
        return 0
    if runner.finished() and not args.resume:
        raise MilanError(f'{work} holds finished runs of this study: go on with --resume, or give '
                         'another --work-dir')
    command = shlex.join(['python', 'tools/ablate.py', *sys.argv[1:]])

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


if __name__ == '__main__':
    sys.exit(run_tool(main))
