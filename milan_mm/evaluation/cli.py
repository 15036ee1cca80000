# SPDX-License-Identifier: Apache-2.0
"""Options that the tools around a trained encoder share."""
import argparse

import torch

from ..errors import MilanError
from ..inference.device import check_device
from ..inference.encoders import Extractor, get_model, get_teacher, random_like


def add_encoder_arguments(parser: argparse.ArgumentParser) -> None:
    """The checkpoint, how images are fed to it, and where it runs."""
    parser.add_argument('checkpoint', metavar='CHECKPOINT',
                        help='training checkpoint, export, or a published MAE or MILAN file')
    parser.add_argument('--teacher', action='store_true',
                        help='CHECKPOINT is a CLIP teacher: a file or folder, or MODEL:TAG in '
                        'open_clip\'s names')
    parser.add_argument('--quickgelu', action=argparse.BooleanOptionalAction, default=None,
                        help='with --teacher: the GELU of a file that does not say')
    parser.add_argument('--patch-size', type=int, metavar='P',
                        help='with --teacher: patches of the student whose grid it shall have')
    parser.add_argument('--random-weights', action='store_true',
                        help='the checkpoint\'s architecture with fresh weights')
    parser.add_argument('--seed', type=int, default=0, help='of random weights (default: 0)')
    parser.add_argument('--img-size', type=int, nargs='+', metavar='PIXELS',
                        help='side of the images, or height and width (default: as trained)')
    parser.add_argument('--crop-ratio', type=float, default=0.875, metavar='R',
                        help='central crop as a share of the largest that fits (default: .875)')
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--workers', type=int, default=2, help='processes that decode (default: 2)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='load a pickle that needs more than tensors, which can run code')


def build_extractor(args: argparse.Namespace) -> Extractor:
    """The encoder the arguments describe, on its device.

    Raises:
        MilanError: if arguments contradict each other or a value is out of range.
    """
    if args.batch_size < 1 or args.workers < 0 or not 0 < args.crop_ratio <= 1:
        raise MilanError('--batch-size must be at least 1, --workers at least 0 and --crop-ratio '
                         f'in (0, 1]; got {args.batch_size}, {args.workers}, {args.crop_ratio}')
    device = check_device(args.device)
    img_size = _size(args.img_size)
    if args.teacher:
        if args.random_weights:
            raise MilanError('--teacher and --random-weights exclude each other')
        model = get_teacher(args.checkpoint, img_size, args.patch_size, args.crop_ratio,
                            args.quickgelu)
    elif args.patch_size is not None or args.quickgelu is not None:
        raise MilanError('--patch-size and --quickgelu belong to --teacher; an encoder has the '
                         'patches it was trained with')
    else:
        how = dict(img_size=img_size, crop_ratio=args.crop_ratio, seed=args.seed,
                   trust_checkpoint=args.trust_checkpoint)
        model = (random_like if args.random_weights else get_model)(args.checkpoint, **how)
    return model.to(device)


def _size(values: list | None) -> tuple[int, int] | None:
    if values is None:
        return None
    if len(values) > 2 or min(values) < 1:
        raise MilanError(f'--img-size takes a side, or height and width, got {values}')
    return (values[0], values[-1])
