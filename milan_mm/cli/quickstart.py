# SPDX-License-Identifier: Apache-2.0
"""Runs the whole method on a CPU in minutes, and measures it.

It makes images, pretrains MILAN and MAE, and compares their features; then come finetuning,
Mask R-CNN and UperNet, from MILAN, from MAE and from scratch. Without --data-root it takes drawings
that come with the project, and a CLIP that was trained on them; what was held out is what is
measured. Results are results.json and report.html in the work folder, one page that works offline.
A second call goes on where the first one stopped.
"""
import argparse
from pathlib import Path

from . import options

STAGES = ('images', 'teacher', 'pretrain', 'eval', 'finetune', 'scenes', 'detection',
          'segmentation', 'report')
COMPOSITIONS = ('textured', 'filling', 'class-ground')
EXAMPLES = """\
  milan quickstart
  milan quickstart --quick
  milan quickstart --data-root DIR --work-dir work_dirs/mine"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add(parser, '--data-root', help='Folder of your own images, DIR/<class>/<image>; the '
                'caption of a/b.png is the text of a/b.txt, else class and file name.')
    options.add(parser, '--work-dir', default='work_dirs/quickstart',
                help='Folder for everything that is made (default: %(default)s).')
    options.add(parser, '--teacher', help='CLIP to learn from: a file, a folder, or MODEL:TAG in '
                'the names of open_clip, such as ViT-B-16-quickgelu:openai (default: the one that '
                'comes with the package; of 2,000 captioned images of your own, one is trained).')
    parser.add_argument('--train-teacher', action='store_true', help='Train a small CLIP on the '
                        'images and their captions, for about four minutes.')
    parser.add_argument('--seeds', type=int, default=1, metavar='N', help='Number of repetitions; '
                        'gives mean and standard deviation (default: %(default)s).')
    parser.add_argument('--quick', action='store_true', help='Do everything in a few minutes: a '
                        'smoke test, no evidence.')
    parser.add_argument('--full', action='store_true', help='With --seeds, do every '
                        'task each time, not with the first seed alone.')
    parser.add_argument('--coco', nargs=2, metavar=('JSON', 'DIR'), help='Your own images with '
                        'boxes and masks, for the detection: annotation file and folder.')
    parser.add_argument('--ade', metavar='DIR', help='Your own images with label maps, in folders '
                        'as those of ADE20K, for the segmentation.')
    parser.add_argument('--composition', choices=COMPOSITIONS, default='textured', help='Of the '
                        "drawings' images: small subjects on arbitrary textures, subjects that "
                        'fill the image, or textures that belong to the class (default: '
                        '%(default)s).')
    parser.add_argument('--stage', nargs='+', choices=STAGES, metavar='STAGE', help='Do only some '
                        'of: %(choices)s.')
    parser.add_argument('--force', action='store_true', help='Start over.')


def run(args: argparse.Namespace) -> None:
    from ..lab.quickstart.results import table
    from ..lab.quickstart.stages import Settings, run_quickstart
    work = Path(args.work_dir)
    asked = Settings(work, args.data_root or None, args.quick, full=args.full,
                     coco=tuple(args.coco) if args.coco else None, ade=args.ade,
                     teacher=args.teacher, train_teacher=args.train_teacher,
                     composition=args.composition)
    result = run_quickstart(asked, args.seeds, args.force, args.stage,
                            log=lambda line: print(line, flush=True))
    if result:
        print(table(result))
        minutes = sum(result['seconds'].values()) / 60
        print(f'\n{minutes:.1f} minutes; figures: {work / "results.json"}, page: '
              f'{work / "report.html"}')
