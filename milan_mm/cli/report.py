# SPDX-License-Identifier: Apache-2.0
"""Writes the page of a run: what it reached, curves, images, config, versions, what to do next.

WORK_DIR is the folder of a pretraining, a finetuning, a detector or a segmentor, while it is
trained or afterwards; or that of the quickstart. The page is one file that works offline.
"""
import argparse
from pathlib import Path

from ..errors import MilanError
from . import options

EXAMPLES = """\
  milan report work_dirs/vitb_pretrain
  milan report work_dirs/detection --images DIR"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('work_dir', metavar='WORK_DIR', help='Folder that a training wrote to.')
    parser.add_argument('--out', metavar='FILE', help='Path of the page (default: '
                        'WORK_DIR/report.html).')
    parser.add_argument('--images', metavar='DIR', help='Folder of the images to show (default: '
                        'some of the run\'s own test or training set).')
    options.add(parser, '--num-images', default=4, help='Number of images to show (default: '
                '%(default)s).')
    options.add(parser, '--teacher', help='Where the teacher of a pretraining is now, if not where '
                'the config says: a file, a folder, or MODEL:TAG.')
    options.add(parser, '--device', '--trust-checkpoint')


def run(args: argparse.Namespace) -> None:
    from ..analysis.run_report.report import write_run_report
    from ..inference.device import check_device
    from ..lab.quickstart.report import write_report
    work = Path(args.work_dir).expanduser()
    if args.num_images < 1:
        raise MilanError(f'--num-images must be at least 1, got {args.num_images}')
    if not work.is_dir():
        raise MilanError(f'no such folder: {work}; expected one that a training wrote to')
    if (work / 'data/meta.json').is_file():
        print(write_report(work))
        return
    if (work / 'study.json').is_file():
        raise MilanError(f'{work} is a study, whose page is {work / "study.html"}; its runs are '
                         f'in {work / "runs"}')
    page, note = write_run_report(
        work, args.out, images=args.images, most=args.num_images, teacher=args.teacher,
        device=check_device(args.device), trust=args.trust_checkpoint)
    if note:
        print(f'without images: {note}')
    print(page)
