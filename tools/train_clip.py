# SPDX-License-Identifier: Apache-2.0
"""Trains a small CLIP on the images of a folder and their captions.

The caption of a/b.png is the text of a/b.txt, else the words of its class folder and file name.
The result is a folder in open_clip's format, to be used as a teacher.
"""
import argparse
import sys
from dataclasses import replace

import torch

from milan_mm.engine.cli import run_tool
from milan_mm.errors import MilanError
from milan_mm.lab.clip_training import ClipRecipe, ImagePairs, save_clip, train_clip


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', required=True, metavar='DIR',
                        help='folder of images, sub-folders allowed')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder to write the CLIP to')
    parser.add_argument('--epochs', type=float, metavar='N',
                        help='passes over the images, instead of --steps')
    parser.add_argument('--threads', type=int, metavar='N', help="torch's threads")
    for name, (default, text) in ClipRecipe.describe().items():
        parser.add_argument(f'--{name.replace("_", "-")}', type=type(default), default=default,
                            metavar='X', help=f'{text} (default: {default})')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    recipe = ClipRecipe(**{name: getattr(args, name) for name in ClipRecipe.describe()})
    recipe.check()
    if args.threads is not None:
        if args.threads < 1:
            raise MilanError(f'--threads must be at least 1, got {args.threads}')
        torch.set_num_threads(args.threads)
    pairs = ImagePairs(args.data, recipe.image_size)
    if args.epochs is not None:
        steps = round(args.epochs * len(pairs) / min(recipe.batch_size, len(pairs)))
        recipe = replace(recipe, steps=max(1, steps))
    model, curve = train_clip(pairs, recipe)
    save_clip(model, recipe, curve, args.out)
    print(f'CLIP written to {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(run_tool(main))
