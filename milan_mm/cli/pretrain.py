# SPDX-License-Identifier: Apache-2.0
"""Pretrains an encoder with MILAN on a folder of your own images. No labels are needed.

This is configs/milan/own_images.py with the choices that matter most as options; with --init-from
it is own_images_continue.py, whose schedule is a tenth as long. A teacher named by MODEL:TAG is
downloaded at its first use. For everything else there are --cfg-options, or a config of your own
and milan train.
"""
import argparse
import os

from ..reachable import REPOS, check_teacher_at_hand
from . import options
from .train import add_training_options

ARCHS = ('vit-s', 'vit-b', 'vit-l', 'vit-h')
EXAMPLES = """\
  milan pretrain DIR
  milan pretrain DIR --arch vit-s --teacher clip_folder --epochs 100 --work-dir work_dirs/mine
  milan pretrain DIR --init-from CHECKPOINT
  milan pretrain DIR --devices 8"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('data', metavar='DATA', nargs='+', help='Folder of images, sub-folders '
                        'included; a list of images (.csv, .json, .jsonl, .parquet, .txt); or a '
                        'folder of shards. Several are mixed, DATA:2 with twice the weight.')
    parser.add_argument('--arch', choices=ARCHS, default='vit-b', help='Size of the encoder '
                        '(default: %(default)s).')
    options.add(parser, '--teacher', help='CLIP that teaches: a file, a folder, a name such as '
                'demo/teacher, or MODEL:TAG in the names of open_clip (default: '
                'ViT-B-16-quickgelu:openai; ViT-L-14-quickgelu:openai for vit-l and vit-h).')
    parser.add_argument('--work-dir', '--out', metavar='DIR', help='Folder for logs and '
                        'checkpoints (default: work_dirs/own_images).')
    add_training_options(parser)
    options.add(parser, '--batch-size', default=None, help='Number of images that a GPU takes at a '
                'time (default: 128, 128, 64, 32 by size, or as many as there are). Gradients are '
                'accumulated to about 512 images an update.')
    options.add(parser, '--img-size', default=224, help='Side of the images in pixels (default: '
                '%(default)s).')
    parser.add_argument('--channels', type=int, metavar='N', help='Number of channels of images '
                        'that are not RGB: .npy, TIFF or PNG of 8 or more bits (default: RGB).')
    parser.add_argument('--teacher-channels', type=int, nargs=3, metavar='I', help='With '
                        '--channels, the three that the teacher gets as red, green and blue, from '
                        '0 (default: 0 1 2, or 0 0 0 where there are fewer).')
    parser.add_argument('--value-range', type=float, nargs=2, metavar=('LOW', 'HIGH'), help='With '
                        '--channels, the values that become 0 and 255 (default: all of 8 or 16 '
                        'bits).')
    options.add(parser, '--workers', default=8)
    options.add(parser, '--seed', help='Seed of weights, order, augmentation and masks (default: '
                '%(default)s).')
    options.add_launcher(parser)
    options.add(parser, '--trust-checkpoint', '--cfg-options')


def check(args: argparse.Namespace) -> None:
    """What can be known before PyTorch is imported."""
    default = next(iter(REPOS)) if args.arch in ('vit-s', 'vit-b') else list(REPOS)[1]
    check_teacher_at_hand(args.teacher or default)


def run(args: argparse.Namespace) -> None:
    from ..api import pretrain
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    checkpoint = pretrain(
        args.data, args.work_dir, args.arch, args.teacher, args.epochs, init_from=args.init_from,
        batch_size=args.batch_size, img_size=args.img_size, workers=args.workers, seed=args.seed,
        channels=args.channels, teacher_channels=args.teacher_channels,
        value_range=args.value_range, resume=args.resume, compile=args.compile,
        launcher=args.launcher, cfg_options=args.cfg_options,
        trust_checkpoint=args.trust_checkpoint, verbose=args.verbose,
        dry_run=args.dry_run)
    if checkpoint:
        print(f'{checkpoint}: milan eval, extract and visualize take it')
