# SPDX-License-Identifier: Apache-2.0
"""Shows what a pretrained model does with given images.

For each image: the teacher's importance, drawn masks, attention rollout of the encoder, features
of teacher and encoder as colours, prediction and error by patch at several mask ratios, and with
--folder the nearest images of a folder. One PNG an image, and one page that works offline.
"""
import argparse
import sys
from pathlib import Path

import torch
from mmengine.config import DictAction

from milan_mm.analysis.visualization.views import RATIOS
from milan_mm.analysis.visualization.visualize import visualize
from milan_mm.engine.cli import run_tool
from milan_mm.inference.device import check_device
from milan_mm.inference.pretraining import load_pretraining


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', metavar='CHECKPOINT',
                        help='of a MILAN, MAE or MaskAlign pretraining, as it was written')
    parser.add_argument('images', metavar='IMAGES', nargs='+', help='files, or folders of them')
    parser.add_argument('--out', metavar='DIR',
                        help='where PNGs and index.html go (default: <run>/visualize)')
    parser.add_argument('--config', help='of the training (default: as saved in the checkpoint)')
    parser.add_argument('--teacher', metavar='DIR|MODEL:TAG',
                        help='where the teacher is now, if not where the config says; for MAE a '
                        'teacher that gives the importance')
    parser.add_argument('--folder', metavar='DIR', help='look for the nearest images in it')
    parser.add_argument('--seed', type=int, default=0,
                        help='of masks and of what is drawn from folders (default: 0)')
    parser.add_argument('--masks', type=int, default=4, metavar='K',
                        help='masks drawn of each image (default: 4)')
    parser.add_argument('--ratios', type=float, nargs='+', default=RATIOS, metavar='R',
                        help='shares to mask besides the training\'s own (default: .25 .5 .75 .9)')
    parser.add_argument('--most', type=int, default=8, metavar='N',
                        help='images taken of each folder in IMAGES (default: 8)')
    parser.add_argument('--gallery', type=int, default=1000, metavar='N',
                        help='images of --folder looked at (default: 1000)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='load a pickle that needs more than tensors, which can run code')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='change values of the config')
    args = parser.parse_args()
    device = check_device(args.device)
    checkpoint = Path(args.checkpoint)
    model = load_pretraining(
        checkpoint, args.config, args.teacher, args.cfg_options, args.trust_checkpoint).to(device)
    made = visualize(
        model, args.images, args.out or checkpoint.parent / 'visualize',
        source=f'{checkpoint.parent.name}/{checkpoint.name}'.lstrip('/'), folder=args.folder,
        seed=args.seed, draws=args.masks, ratios=args.ratios, most=args.most,
        gallery=args.gallery)
    for folder, count in made.left_out.items():
        print(f'{folder} has {count} images more; --most takes more of them')
    print('means: ' + '; '.join(f'{name} {value:.3f}' for name, value in made.means.items()))
    print(f'{made.page}: {len(made.sheets)} images; each also as a PNG beside it')


if __name__ == '__main__':
    sys.exit(run_tool(main))
