# SPDX-License-Identifier: Apache-2.0
"""The encoder that ``extract`` and ``eval`` look at: which one, and how images are fed to it."""
import argparse
from typing import TYPE_CHECKING

from ..errors import MilanError
from . import options

if TYPE_CHECKING:
    from ..inference.encoders import Extractor


def add_encoder_arguments(parser: argparse.ArgumentParser) -> None:
    """The checkpoint or the teacher, how images are fed to it, and where it runs."""
    parser.add_argument('checkpoint', metavar='CHECKPOINT', nargs='?', help='A checkpoint of a '
                        'training, an export, or a published file of MILAN or MAE.')
    options.add(parser, '--teacher', help='Look at this CLIP teacher instead of a checkpoint: a '
                'file, a folder, or MODEL:TAG in the names of open_clip.')
    parser.add_argument('--quickgelu', action=argparse.BooleanOptionalAction, default=None,
                        help='With --teacher: which GELU a file has that does not say so.')
    parser.add_argument('--patch-size', type=int, metavar='PIXELS', help='With --teacher: give it '
                        'the grid of a student with patches of this size.')
    parser.add_argument('--random-weights', action='store_true', help='Take the architecture of '
                        'the checkpoint with random weights.')
    options.add(parser, '--seed', help='Seed of random weights, and of what is drawn (default: '
                '%(default)s).')
    options.add(parser, '--img-size', nargs='+', help='Side of the images, or height and width, in '
                'pixels (default: as in the training).')
    parser.add_argument('--crop-ratio', type=float, metavar='R', help='Side of the central crop, '
                        'as a share of the largest that fits (default: as the checkpoint says, '
                        'else 0.875).')
    options.add(parser, '--batch-size', '--workers', '--device', '--weights', '--trust-checkpoint')


def build_extractor(args: argparse.Namespace) -> 'Extractor':
    """The encoder that the options describe, on its device.

    Raises:
        MilanError: if options contradict each other or a value is out of range.
    """
    from ..architectures import IMAGENET_CROP_RATIO
    from ..inference.device import check_device
    from ..inference.encoders import get_model, get_teacher, random_like
    if (args.checkpoint is None) == (args.teacher is None):
        raise MilanError(f'give a CHECKPOINT or --teacher SPEC, one of them; got '
                         f'{"both" if args.teacher else "neither"}')
    ratio = args.crop_ratio
    if args.batch_size < 1 or args.workers < 0 or not (ratio is None or 0 < ratio <= 1):
        raise MilanError('--batch-size must be at least 1, --workers at least 0 and --crop-ratio '
                         f'in (0, 1]; got {args.batch_size}, {args.workers}, {ratio}')
    device = check_device(args.device)
    img_size = size_of(args.img_size)
    if args.teacher:
        if args.random_weights:
            raise MilanError('--teacher and --random-weights exclude each other')
        return get_teacher(args.teacher, img_size, args.patch_size,
                           IMAGENET_CROP_RATIO if ratio is None else ratio,
                           args.quickgelu).to(device)
    if args.patch_size is not None or args.quickgelu is not None:
        raise MilanError('--patch-size and --quickgelu belong to --teacher; an encoder has the '
                         'patches it was trained with')
    build = random_like if args.random_weights else get_model
    return build(args.checkpoint, img_size=img_size, crop_ratio=ratio, seed=args.seed,
                 weights=args.weights, trust_checkpoint=args.trust_checkpoint).to(device)


def size_of(values: list[int] | None) -> tuple[int, int] | None:
    """Height and width out of ``--img-size``."""
    if values is None:
        return None
    if len(values) > 2 or min(values) < 1:
        raise MilanError(f'--img-size takes a side, or height and width, got {values}')
    return (values[0], values[-1])
