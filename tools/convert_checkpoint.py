# SPDX-License-Identifier: Apache-2.0
"""Writes the student of a checkpoint under the names that another library loads.

The source's format is found out: a training checkpoint of this package or of mmpretrain, a file as
MAE's and MILAN's authors publish them, timm's, DINOv2's or CLIP's weights, a Hugging Face folder.
Values are not changed. What is left out is named.
"""
import argparse
import sys

from milan_mm.checkpoints.convert import TARGETS, convert
from milan_mm.checkpoints.handover import summary
from milan_mm.checkpoints.vit import FORMATS
from milan_mm.engine.cli import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='SRC', help='.pth, .pt, .safetensors or a folder')
    parser.add_argument('target', metavar='DST',
                        help='.pth, .pt or .safetensors; for hf a new folder')
    parser.add_argument('--to', choices=TARGETS, required=True,
                        help='milan_mm: encoder and decoder as backbone.* and neck.*; mmpretrain: '
                        'the encoder as backbone.*; timm: as its VisionTransformer loads it '
                        '(num_classes=0); hf: a folder for ViTModel; authors: encoder and decoder '
                        'as in the published checkpoints')
    parser.add_argument('--from', dest='format', choices=FORMATS,
                        help='format of the source, if it is not to be found out')
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='load a pickle that needs more than tensors, which can run code')
    args = parser.parse_args()
    done = convert(args.source, args.target, args.to, args.format, args.trust_checkpoint)
    left_out = f'; left out: {summary(done.dropped)}' if done.dropped else ''
    print(f'{args.target}: {done.kept} tensors in the naming of {args.to}, from {done.format}'
          f'{left_out}')


if __name__ == '__main__':
    sys.exit(run_tool(main))
