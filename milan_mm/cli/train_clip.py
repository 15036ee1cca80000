# SPDX-License-Identifier: Apache-2.0
"""Trains a small CLIP on the images of a folder and their captions.

The captions of a/b.png are the lines of a/b.txt, one of which is drawn each time; without that file
its caption is the words of its class folder and file name.
The result is a folder in the format of open_clip, to be used as a teacher.
"""
import argparse
from dataclasses import replace

from ..errors import MilanError
from ..lab.clip_recipe import ClipRecipe
from . import options

EXAMPLES = """\
  milan train-clip --data-root DIR --out clip
  milan train-clip --data-root DIR --out clip --epochs 20 --img-size 96 --loss sigmoid"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add(parser, '--data-root', required=True, help='Folder of images, sub-folders '
                'included.')
    parser.add_argument('--out', required=True, metavar='DIR', help='Folder to write the CLIP to.')
    parser.add_argument('--epochs', type=float, metavar='N', help='Number of passes over the '
                        'images, instead of --steps.')
    parser.add_argument('--threads', type=int, metavar='N', help='Number of threads that PyTorch '
                        'uses.')
    parser.add_argument('--amp', action='store_true', help='Compute in bfloat16 where this CPU is '
                        'fast at it; the log says whether.')
    parser.add_argument('--half', action='store_true', help='Store the weights in float16: half '
                        'the bytes.')
    recipe = parser.add_argument_group('recipe')
    for name, (default, text) in ClipRecipe.describe().items():
        recipe.add_argument(f'--{option(name)}', dest=name, type=type(default), default=default,
                            metavar='X', help=f'{text} (default: %(default)s).')


def option(name: str) -> str:
    """How an entry of the recipe is spelt here."""
    return name.replace('image_size', 'img_size').replace('_', '-')


def run(args: argparse.Namespace) -> None:
    import torch

    from ..lab.clip_training import ImagePairs, save_clip, train_clip
    recipe = ClipRecipe(**{name: getattr(args, name) for name in ClipRecipe.describe()})
    recipe.check()
    if args.threads is not None:
        if args.threads < 1:
            raise MilanError(f'--threads must be at least 1, got {args.threads}')
        torch.set_num_threads(args.threads)
    pairs = ImagePairs(args.data_root, recipe.image_size)
    if args.epochs is not None:
        steps = round(args.epochs * len(pairs) / min(recipe.batch_size, len(pairs)))
        recipe = replace(recipe, steps=max(1, steps))
    model, curve = train_clip(pairs, recipe, amp=args.amp)
    save_clip(model, recipe, curve, args.out, args.half)
    print(f'CLIP written to {args.out}')
