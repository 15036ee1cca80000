# SPDX-License-Identifier: Apache-2.0
"""Writes the encoder of a checkpoint under the names that another library loads.

The format of the source is found out: a checkpoint of a training with this package or with
mmpretrain, a file as the authors of MAE and MILAN publish them, weights of timm, DINOv2 or CLIP, a
folder of Hugging Face. Values are not changed. What is left out is named.
"""
import argparse

from . import options

TARGETS = ('milan_mm', 'mmpretrain', 'timm', 'hf', 'authors')
FORMATS = ('milan_mm', 'mmpretrain', 'authors', 'timm', 'hf', 'dinov3', 'clip', 'torchvision',
           'jax')
EXAMPLES = """\
  milan convert CHECKPOINT encoder.pth --to timm
  milan convert CHECKPOINT encoder_hf --to hf
  milan convert mae_pretrain_vit_base.pth encoder.safetensors --to milan_mm"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='.pth, .pt or .safetensors file, '
                        'or a folder.')
    parser.add_argument('target', metavar='TARGET', help='.pth, .pt or .safetensors file to write; '
                        'for hf a new folder.')
    parser.add_argument('--to', choices=TARGETS, required=True, help='Whose names to write. '
                        'milan_mm: encoder and decoder as backbone.* and neck.*; mmpretrain: the '
                        'encoder as backbone.*; timm: for its VisionTransformer (num_classes=0); '
                        'hf: a folder for ViTModel; authors: encoder and decoder as in the '
                        'published checkpoints.')
    parser.add_argument('--from', dest='format', choices=FORMATS, help='Format of the source, if '
                        'it cannot be found out.')
    options.add(parser, '--weights', '--trust-checkpoint')


def run(args: argparse.Namespace) -> None:
    from ..checkpoints.convert import convert
    from ..checkpoints.handover import summary
    done = convert(args.checkpoint, args.target, args.to, args.format,
                   args.trust_checkpoint, args.weights)
    left_out = f'; left out: {summary(done.dropped)}' if done.dropped else ''
    print(f'{args.target}: {done.kept} tensors in the naming of {args.to}, from {done.format}'
          f'{"; " * bool(done.unwrapped)}{done.unwrapped}{left_out}')
