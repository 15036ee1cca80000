# SPDX-License-Identifier: Apache-2.0
"""Writes the folder of a model for the Hugging Face Hub, and the command that uploads it.

Nothing is uploaded unless --upload is given; the login is that of huggingface_hub.
"""
import argparse

from . import options

EXAMPLES = """\
  milan push-to-hub CHECKPOINT NAME/REPOSITORY
  milan push-to-hub CHECKPOINT NAME/REPOSITORY --to hf --upload"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add(parser, 'checkpoint', help='A checkpoint of a training, or any file of a ViT.')
    parser.add_argument('repository', metavar='NAME/REPOSITORY', help='Where on the Hub.')
    parser.add_argument('--to', choices=('timm', 'hf'), default='timm', help='Whose folder to '
                        'write (default: %(default)s).')
    parser.add_argument('--out', metavar='DIR', help='Folder to write (default: hub/REPOSITORY).')
    parser.add_argument('--upload', action='store_true', help='Upload it.')
    options.add(parser, '--weights', '--trust-checkpoint')


def run(args: argparse.Namespace) -> None:
    from pathlib import Path

    from ..checkpoints.published import upload, write_folder
    folder = Path(args.out or f'hub/{args.repository.rpartition("/")[2]}')
    write_folder(args.checkpoint, folder, args.to, args.weights, args.trust_checkpoint)
    print(f'{folder} is written; look at its README.md. To upload it:\n'
          f'  huggingface-cli upload {args.repository} {folder}')
    if args.upload:
        print(f'uploaded: {upload(folder, args.repository)}')
