# SPDX-License-Identifier: Apache-2.0
"""Says what to train with on your own images: short runs over the few choices that mattered.

Kind and share of the masks, temperature, MILAN or MaskAlign, MAE for comparison, a fresh start or
--init-from. The better half of the choices goes on with more steps; in the end the best is compared
with the default anew, with fresh seeds. The default stays unless the best is better by more than
the spread. With --labels, k-NN measures, on labelled images that no run is trained on; without, how
many of the teacher's nearest neighbours are the student's too, on held-out images. The work folder
then holds tuned.py, the config to train with, and tune.html. A call that was stopped goes on when
it is repeated.
"""
import argparse
import shlex
from pathlib import Path

from ..errors import MilanError
from ..reachable import REPOS, check_teacher_at_hand
from . import options

EXAMPLES = """\
  milan tune --data-root DIR --hours 8
  milan tune --data-root DIR --labels LABELLED_DIR --teacher clip_folder --hours 4
  milan train work_dirs/tune/tuned.py --data-root DIR"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add(parser, '--data-root', required=True, help='Folder of your images, sub-folders '
                'included, or a list of them.')
    parser.add_argument('--labels', metavar='DIR', help='Folder of labelled images, '
                        'DIR/<class>/<image>, or such folders as DIR/train and DIR/val.')
    parser.add_argument('--hours', type=float, required=True, metavar='H', help='Hours that all '
                        'runs may take together.')
    options.add(parser, '--teacher')
    parser.add_argument('--init-from', metavar='CHECKPOINT', help='Try these weights as a start, '
                        'beside a fresh one.')
    parser.add_argument('--config', metavar='FILE', help='The default that the choices change '
                        '(default: configs/milan/own_images.py).')
    parser.add_argument('--only', nargs='+', metavar='CHOICE', help='Try these beside the default, '
                        'such as random_40 or align_random_40.')
    options.add(parser, '--work-dir', help='Folder for runs and results (default: '
                'work_dirs/tune).')
    parser.add_argument('--feature', choices=['cls', 'pooled'], default='cls', help='Use the CLS '
                        'token or the mean of the patch tokens (default: %(default)s).')
    options.add(parser, '--workers', default=None, help='Number of processes that read images '
                '(default: as the config has it).')
    options.add(parser, '--seed', '--device', '--trust-checkpoint', '--cfg-options')


def check(args: argparse.Namespace) -> None:
    """What can be known before PyTorch is imported."""
    if args.teacher or not args.config:
        check_teacher_at_hand(args.teacher or next(iter(REPOS)))


def run(args: argparse.Namespace) -> None:
    from ..lab.tune.advice import as_text, table, write_advice
    from ..lab.tune.prepare import prepare
    if not args.hours > 0:
        raise MilanError(f'--hours must be above 0, got {args.hours:g}')
    command = shlex.join(['milan', *args.words])
    work = Path(args.work_dir or 'work_dirs/tune').resolve()
    tuner = prepare(
        args.data_root, args.labels, args.hours, work, config=args.config, teacher=args.teacher,
        init_from=args.init_from, feature=args.feature, workers=args.workers, seed=args.seed,
        device=args.device, only=args.only, options=args.cfg_options,
        trust=args.trust_checkpoint,
        log=lambda line: print(line, flush=True))
    known = tuner.judge.teacher_scores()
    teacher = sum(known) / len(known) if known else None
    print(f'{tuner.split.words}\n{tuner.judge.unit}'
          + (f'; the teacher has {teacher:.1f}' if known else ''))
    tuner.execute(on_rung=lambda: print(f'\n{as_text(table(tuner))}\n', flush=True))
    decision = write_advice(tuner, command, teacher)
    print(f'\n{as_text(table(tuner))}\n\n{decision.words}\npage: {work / "tune.html"}\n'
          f'train with it: milan train {work / "tuned.py"} --data-root {args.data_root}')
