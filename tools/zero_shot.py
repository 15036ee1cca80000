# SPDX-License-Identifier: Apache-2.0
"""Names images by text alone, with a student that never saw a text.

The decoder that pretraining trained maps the student's CLS token into the CLIP teacher's space;
there the nearest text of a class names the image. The teacher's own accuracy and chance stand
beside it. Labels, DIR/<class>/<images>, are only used to count.
"""
import argparse
import json
import sys

import torch
from mmengine.config import DictAction

from milan_mm.analysis.zero_shot.classify import check_model, labelled_folder, summary, zero_shot
from milan_mm.analysis.zero_shot.prompts import (
    embed_classes,
    load_text_tower,
    read_names,
    read_prompts,
    read_texts,
    save_texts,
)
from milan_mm.checkpoints.io import write_atomically
from milan_mm.engine.cli import run_tool
from milan_mm.errors import MilanError
from milan_mm.inference.device import check_device
from milan_mm.inference.pretraining import load_pretraining
from milan_mm.inference.subject import teacher_of


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='of a pretraining with a CLIP')
    parser.add_argument('--data', metavar='DIR', required=True, help='DIR/<class>/<images>')
    parser.add_argument('--prompts', nargs='+', default=['a photo of a {}'], metavar='TEMPLATE',
                        help='with {} for the name of a class, or a file with one on each line; '
                        'several are averaged (default: \'a photo of a {}\')')
    parser.add_argument('--names', metavar='FILE', help='JSON, {"folder": "name", ...}, where the '
                        'folders\' names are no words')
    parser.add_argument('--teacher', metavar='FILE|DIR|MODEL:TAG',
                        help='where the teacher is now')
    parser.add_argument('--text-tower', metavar='DIR|MODEL:TAG', help='the CLIP whose text tower '
                        'is used (default: the teacher\'s)')
    parser.add_argument('--save-text', metavar='FILE', help='.safetensors to write the texts to')
    parser.add_argument('--text', metavar='FILE', help='texts of an earlier --save-text, instead '
                        'of prompts and text tower')
    parser.add_argument('--config', help='of the training, instead of the one in the checkpoint')
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--seed', type=int, default=0, help='of the masks (default: 0)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--out', metavar='FILE', help='JSON to write')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='change values of the config')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.batch_size < 1:
        raise MilanError(f'--batch-size must be at least 1, got {args.batch_size}')
    device = check_device(args.device)
    prompts = read_prompts(args.prompts)
    model = load_pretraining(args.checkpoint, args.config, args.teacher, args.cfg_options)
    check_model(model)
    model.to(device)
    folder = labelled_folder(model, args.data)
    classes = folder.metainfo['classes']
    if args.text:
        texts = read_texts(args.text, classes)
    else:
        tower = load_text_tower(args.text_tower or args.teacher or teacher_of(
            args.checkpoint, args.config, args.cfg_options))
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


if __name__ == '__main__':
    sys.exit(run_tool(main))
