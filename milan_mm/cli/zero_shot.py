# SPDX-License-Identifier: Apache-2.0
"""Names images by text alone, with a student that never saw a text.

The decoder that pretraining trained maps the student's CLS token into the CLIP teacher's space;
there the nearest text of a class names the image. The teacher's own accuracy and what always naming
the commonest class gets right stand beside it. Labels, DIR/<class>/<images>, are only used to
count.
"""
import argparse
import json

from ..errors import MilanError
from . import options

EXAMPLES = """\
  milan zero-shot CHECKPOINT --data DIR --prompts 'a photo of a {}' 'a drawing of a {}'
  milan zero-shot CHECKPOINT --data DIR --save-text texts.safetensors
  milan zero-shot CHECKPOINT --data DIR --text texts.safetensors"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add(parser, 'checkpoint', help='Checkpoint of a pretraining with a CLIP teacher.')
    options.add(parser, '--data', help='Folder of labelled images, DIR/<class>/<images>.')
    parser.add_argument('--prompts', nargs='+', default=['a photo of a {}'], metavar='TEMPLATE',
                        help='Templates with {} for the name of a class, or a file with one on '
                        'each line; several are averaged (default: \'a photo of a {}\').')
    parser.add_argument('--names', metavar='FILE', help='JSON file {"folder": "name", ...}, where '
                        'the names of folders are no words.')
    options.add(parser, '--teacher', '--config')
    parser.add_argument('--text-tower', metavar='SPEC', help='CLIP whose text tower is used: a '
                        'folder, or MODEL:TAG (default: the teacher).')
    parser.add_argument('--save-text', metavar='FILE', help='Write the embedded texts to this '
                        '.safetensors file.')
    parser.add_argument('--text', metavar='FILE', help='Read texts of an earlier --save-text, '
                        'instead of prompts and text tower.')
    parser.add_argument('--out', metavar='FILE', help='JSON file to write the results to.')
    options.add(parser, '--batch-size')
    options.add(parser, '--seed', help='Seed of the masks (default: %(default)s).')
    options.add(parser, '--device', '--trust-checkpoint', '--cfg-options')


def run(args: argparse.Namespace) -> None:
    from ..analysis.zero_shot.classify import check_model, labelled_folder, summary, zero_shot
    from ..analysis.zero_shot.prompts import (
        embed_classes,
        load_text_tower,
        read_names,
        read_prompts,
        read_texts,
        save_texts,
    )
    from ..checkpoints.io import write_atomically
    from ..inference.checkpoint import Checkpoint
    from ..inference.device import check_device
    from ..inference.pretraining import build_pretraining
    from ..inference.teachers import teacher_of
    if args.batch_size < 1:
        raise MilanError(f'--batch-size must be at least 1, got {args.batch_size}')
    device = check_device(args.device)
    prompts = read_prompts(args.prompts)
    checkpoint = Checkpoint(args.checkpoint, args.config, args.cfg_options, args.trust_checkpoint)
    model = build_pretraining(checkpoint, args.teacher)
    check_model(model)
    model.to(device)
    folder = labelled_folder(model, args.data)
    classes = folder.metainfo['classes']
    if args.text:
        texts = read_texts(args.text, classes)
    else:
        tower = load_text_tower(args.text_tower or args.teacher or teacher_of(checkpoint))
        texts = embed_classes(tower, classes, read_names(classes, args.names), prompts)
    if args.save_text:
        save_texts(texts, args.save_text)
        print(f'texts: {args.save_text}')
    result = dict(checkpoint=args.checkpoint, data=args.data,
                  **zero_shot(model, folder, texts, args.batch_size, args.seed))
    print(summary(result))
    if args.out:
        write_atomically(
            args.out, lambda path: path.write_text(json.dumps(result, indent=2) + '\n'))
        print(f'results: {args.out}')
