# SPDX-License-Identifier: Apache-2.0
"""Writes the student of a training checkpoint alone, in the naming that others load."""
import argparse
import sys

from milan_mm.engine.cli import run_tool
from milan_mm.engine.export import NAMINGS, export_student


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', metavar='SRC', help='checkpoint of a MILAN or MAE run')
    parser.add_argument('target', metavar='DST', help='.pth, .pt or .safetensors')
    parser.add_argument('--to', choices=NAMINGS, required=True,
                        help='authors: encoder and decoder as in the published checkpoints; '
                        'mmpretrain: the encoder as backbone.*')
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='load a pickle that needs more than tensors, which can run code')
    args = parser.parse_args()
    exported = export_student(args.source, args.target, args.to, args.trust_checkpoint)
    left_out = f'; left out: {", ".join(exported.dropped)}' if exported.dropped else ''
    print(f'{args.target}: {exported.kept} tensors in the naming of {args.to}{left_out}')


if __name__ == '__main__':
    sys.exit(run_tool(main))
