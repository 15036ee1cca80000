# SPDX-License-Identifier: Apache-2.0
"""What an encoder is like inside: layers against the teacher's, heads, units, loss by importance.

CHECKPOINT of a pretraining holds everything but its teacher; of any other encoder that this
package reads, what needs no decoder is measured. Labels are not needed. Writes a PNG for each
measure, diagnosis.json, and index.html with how to read each.
"""
import argparse
import sys

import torch
from mmengine.config import DictAction

from milan_mm.analysis.diagnosis.diagnose import diagnose
from milan_mm.analysis.diagnosis.page import findings, write_diagnosis
from milan_mm.engine.cli import run_tool
from milan_mm.errors import MilanError
from milan_mm.inference.device import check_device
from milan_mm.inference.subject import load_subject


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='of a pretraining, or any encoder')
    parser.add_argument('--data', metavar='DIR', required=True, help='folder of images')
    parser.add_argument('--config', help='of the training, instead of the one in the checkpoint')
    parser.add_argument('--teacher', metavar='FILE|DIR|MODEL:TAG',
                        help='where the teacher is now; of a run on pixels or an encoder alone, a '
                        'CLIP to compare its layers with')
    parser.add_argument('--out', metavar='DIR', default='work_dirs/diagnosis',
                        help='(default: work_dirs/diagnosis)')
    parser.add_argument('--images', type=int, default=512, metavar='N',
                        help='how many are looked at (default: 512)')
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--seed', type=int, default=0,
                        help='of the images chosen and of the masks (default: 0)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='change values of the config')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.images < 8 or args.batch_size < 4:
        raise MilanError('--images must be at least 8 and --batch-size at least 4; got '
                         f'{args.images} and {args.batch_size}')
    subject = load_subject(args.checkpoint, args.config, args.teacher, args.cfg_options,
                           check_device(args.device))
    result = diagnose(subject, args.data, args.images, args.batch_size, args.seed)
    page = write_diagnosis(result, args.out)
    for note in [*result['notes'], *(f'{name}: left out, {why}'
                                     for name, why in result['left_out'].items())]:
        print(note)
    for name, sentence in findings(result).items():
        print(f'{name}: {sentence}')
    print(f'page: {page}')


if __name__ == '__main__':
    sys.exit(run_tool(main))
