# SPDX-License-Identifier: Apache-2.0
"""Says what a pretraining will take on GPUs that are not here: operations, memory, hours.

One image's step is counted on the CPU. Hours follow from the peak of the GPU's data sheet and the
share of it that a run reaches, which is an assumption and is printed as such.
"""
import argparse

from . import options

GPUS = ('a100-40g', 'a100-80g', 'h100-80g', 'l40s-48g', 'a10-24g', 'v100-32g', 'rtx3090-24g',
        'rtx4090-24g', 't4-16g')
USUAL_SHARE = 0.12
EXAMPLES = """\
  milan plan configs/milan/vitb_pretrain.py --gpus 8 --gpu a100-40g
  milan plan configs/milan/own_images.py --gpus 1 --gpu rtx4090-24g --num-images 50000"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add(parser, 'config')
    parser.add_argument('--gpus', type=int, default=8, metavar='N', help='Number of GPUs (default: '
                        '%(default)s).')
    parser.add_argument('--gpu', choices=GPUS, default='a100-40g', help='Which (default: '
                        '%(default)s).')
    parser.add_argument('--share', type=float, default=USUAL_SHARE, help='Share of their peak '
                        'that the run reaches (default: %(default)s, about that of the published '
                        'run of 39 hours).')
    options.add(parser, '--num-images', default=1281167, help='Number of images of the training '
                'set (default: %(default)s, ImageNet-1k).')


def run(args: argparse.Namespace) -> None:
    from ..lab.benchmark.plan import plan
    plan(args.config, args.gpus, args.gpu, args.share, args.num_images)
