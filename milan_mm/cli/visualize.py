# SPDX-License-Identifier: Apache-2.0
"""Shows what a pretrained model does with given images.

For each image: the importance that the teacher gives, drawn masks, the attention rollout of the
encoder, the features of teacher and encoder as colours, prediction and error by patch at several
mask ratios, and with --gallery the nearest images of a folder. Writes a PNG for each image, and one
page that works offline.
"""
import argparse
from pathlib import Path

from . import options

RATIOS = (.25, .5, .75, .9)
EXAMPLES = """\
  milan visualize CHECKPOINT a.jpg b.jpg --out views
  milan visualize CHECKPOINT DIR --num-images 16 --gallery DIR --teacher DIR"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add(parser, 'checkpoint', help='Checkpoint of a pretraining with MILAN, MAE or '
                'MaskAlign, as it was written.')
    options.add(parser, 'images')
    parser.add_argument('--out', metavar='DIR', help='Folder for the PNGs and index.html (default: '
                        'visualize, beside the checkpoint; of a name in work_dirs).')
    options.add(parser, '--config')
    options.add(parser, '--teacher', help='Where the teacher is now, if not where the config says: '
                'a file, a folder, or MODEL:TAG; for MAE a teacher that gives the importance.')
    parser.add_argument('--gallery', metavar='DIR', help='Folder in which the nearest images are '
                        'looked for.')
    parser.add_argument('--num-gallery', type=int, default=1000, metavar='N', help='Number of '
                        'images of --gallery to look at (default: %(default)s).')
    options.add(parser, '--num-images', default=8, help='Number of images to take of each folder '
                'in IMAGES (default: %(default)s).')
    parser.add_argument('--num-masks', type=int, default=4, metavar='N', help='Number of masks to '
                        'draw of each image (default: %(default)s).')
    parser.add_argument('--ratios', type=float, nargs='+', default=RATIOS, metavar='R', help='Mask '
                        'ratios to show besides the one of the training (default: .25 .5 .75 .9).')
    options.add(parser, '--seed', help='Seed of the masks, and of the images that are taken of '
                'folders (default: %(default)s).')
    options.add(parser, '--device', '--trust-checkpoint', '--cfg-options')


def run(args: argparse.Namespace) -> None:
    from ..analysis.visualization.visualize import visualize
    from ..inference.device import check_device
    from ..inference.pretraining import load_pretraining
    device = check_device(args.device)
    checkpoint = Path(args.checkpoint)
    beside = checkpoint.parent if checkpoint.exists() else Path('work_dirs')  # of a name
    model = load_pretraining(
        checkpoint, args.config, args.teacher, args.cfg_options, args.trust_checkpoint).to(device)
    made = visualize(
        model, args.images, args.out or beside / 'visualize',
        source=f'{checkpoint.parent.name}/{checkpoint.name}'.lstrip('/'), folder=args.gallery,
        seed=args.seed, draws=args.num_masks, ratios=args.ratios, most=args.num_images,
        gallery=args.num_gallery)
    for folder, count in made.left_out.items():
        print(f'{folder} has {count} images more; --num-images takes more of them')
    print('means: ' + '; '.join(f'{name} {value:.3f}' for name, value in made.means.items()))
    print(f'{made.page}: {len(made.sheets)} images; each also as a PNG beside it')
