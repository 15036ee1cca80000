# SPDX-License-Identifier: Apache-2.0
"""Writes the features of a folder of images into one file, with the paths of the images.

An .npz file holds the arrays cls (n, D), pooled (n, D) and patches (n, N, D), those asked for,
paths (n), relative to --data, and grid (rows, columns). A .safetensors file holds the same tensors,
with paths and grid as JSON in its metadata.
"""
import argparse

from . import options
from .encoder import add_encoder_arguments, build_extractor

KINDS = ('cls', 'pooled', 'patches')
DTYPES = ('float16', 'float32')
EXAMPLES = """\
  milan extract CHECKPOINT --data DIR --out features.npz
  milan extract CHECKPOINT --data DIR --out features.safetensors --kind cls patches
  milan embed --teacher ViT-B-16-quickgelu:openai --data DIR --out clip.npz"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_encoder_arguments(parser)
    options.add(parser, '--data')
    parser.add_argument('--out', required=True, metavar='FILE', help='File to write, .npz or '
                        '.safetensors.')
    parser.add_argument('--kind', nargs='+', choices=KINDS, default=['cls'], help='Which features: '
                        'the CLS token, the mean of the patch tokens, every patch token (default: '
                        'cls).')
    parser.add_argument('--dtype', choices=DTYPES, default='float32', help='Type of the numbers '
                        '(default: %(default)s).')


def run(args: argparse.Namespace) -> None:
    from ..evaluation.extract import extract_features
    told = extract_features(
        build_extractor(args), args.data, args.out, args.kind, args.dtype, args.batch_size,
        args.workers)
    shapes = ', '.join(f'{kind} {tuple(shape)}' for kind, shape in told['shapes'].items())
    print(f'{args.out}: {told["count"]} images, {shapes}'
          + (f'; {len(told["unreadable"])} could not be decoded' if told['unreadable'] else ''))
