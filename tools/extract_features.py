# SPDX-License-Identifier: Apache-2.0
"""Writes the features of a folder of images into one file, with the images' paths.

.npz: arrays cls (n, D), pooled (n, D), patches (n, N, D), those asked for; paths (n), relative to
--data; grid (rows, columns). .safetensors: the same tensors, paths and grid as JSON in the
metadata.
"""
import argparse
import sys

from milan_mm.engine.cli import run_tool
from milan_mm.evaluation.cli import add_encoder_arguments, build_extractor
from milan_mm.evaluation.extract import DTYPES, KINDS, extract_features


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_encoder_arguments(parser)
    parser.add_argument('--data', required=True, metavar='DIR',
                        help='folder of images, sub-folders allowed')
    parser.add_argument('--out', required=True, metavar='FILE', help='.npz or .safetensors')
    parser.add_argument('--kind', nargs='+', choices=KINDS, default=['cls'],
                        help='CLS token, mean of the patch tokens, every patch token '
                        '(default: cls)')
    parser.add_argument('--dtype', choices=list(DTYPES), default='float32')
    args = parser.parse_args()
    told = extract_features(
        build_extractor(args), args.data, args.out, args.kind, args.dtype, args.batch_size,
        args.workers)
    shapes = ', '.join(f'{kind} {tuple(shape)}' for kind, shape in told['shapes'].items())
    print(f'{args.out}: {told["count"]} images, {shapes}'
          + (f'; {len(told["unreadable"])} could not be decoded' if told['unreadable'] else ''))


if __name__ == '__main__':
    sys.exit(run_tool(main))
