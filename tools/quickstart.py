# SPDX-License-Identifier: Apache-2.0
"""The whole chain on a CPU in minutes: images, a CLIP teacher, MILAN and MAE, the comparison of
their features; then finetuning, Mask R-CNN and UperNet, from MILAN and from scratch.

Without --images on drawings that come with the project; what was held out is what is measured.
Results: WORK/results.json and WORK/report.html, one page that works offline.
"""
import argparse
import sys
from pathlib import Path

from milan_mm.engine.cli import run_tool
from milan_mm.lab.quickstart.results import table
from milan_mm.lab.quickstart.stages import STAGES, Settings, run_quickstart


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='tools/quickstart.sh', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', metavar='DIR', help='your own images, DIR/<class>/<image>'
                        '; the caption of a/b.png is the text of a/b.txt, else class and file name')
    parser.add_argument('--work-dir', default='work_dirs/quickstart', metavar='DIR')
    parser.add_argument('--seeds', type=int, default=1, metavar='N',
                        help='repeat N times and give mean and standard deviation')
    parser.add_argument('--quick', action='store_true',
                        help='everything in a few minutes: a smoke test, no evidence')
    parser.add_argument('--full', action='store_true', help='MAE in detection and segmentation '
                        'too, and with --seeds every task each time')
    parser.add_argument('--coco', nargs=2, metavar=('JSON', 'IMAGES'), help='your own images '
                        'with boxes and masks, for the detection')
    parser.add_argument('--ade', metavar='DIR', help='your own images with label maps in '
                        "ADE20K's folders, for the segmentation")
    parser.add_argument('--stage', nargs='+', choices=STAGES, metavar='STAGE',
                        help=f'only some of: {" ".join(STAGES)}')
    parser.add_argument('--force', action='store_true', help='start over')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    work = Path(args.work_dir)
    asked = Settings(work, args.images or None, args.quick, full=args.full,
                     coco=tuple(args.coco) if args.coco else None, ade=args.ade)
    result = run_quickstart(asked, args.seeds, args.force, args.stage,
                            log=lambda line: print(line, flush=True))
    if result:
        print(table(result))
        minutes = sum(result['seconds'].values()) / 60
        print(f'\n{minutes:.1f} minutes; figures: {work / "results.json"}, page: '
              f'{work / "report.html"}')


if __name__ == '__main__':
    sys.exit(run_tool(main))
