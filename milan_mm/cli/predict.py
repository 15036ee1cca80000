# SPDX-License-Identifier: Apache-2.0
"""Predicts classes, boxes and masks, or label maps for images, and draws them.

Exit code 1: no image could be read.
"""
import argparse

from . import options

EXAMPLES = """\
  milan predict configs/classification/own_finetune.py CHECKPOINT image.jpg --out predictions
  milan predict configs/mask_rcnn/own_coco.py CHECKPOINT DIR --out predictions --score-thr .5"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add(parser, 'config', help='Config file of a classifier, a detector or a segmentor.')
    options.add(parser, 'checkpoint', 'images')
    parser.add_argument('--out', required=True, metavar='DIR', help='Folder for predictions.json '
                        'and the annotated images.')
    parser.add_argument('--topk', type=int, default=5, metavar='K', help='Classification: number '
                        'of classes to name (default: %(default)s).')
    parser.add_argument('--score-thr', type=float, default=0.3, metavar='S', help='Detection: '
                        'leave out what has a lower score (default: %(default)s).')
    options.add(parser, '--device', '--trust-checkpoint', '--cfg-options')


def run(args: argparse.Namespace) -> int:
    from ..inference.predict import predict
    report = predict(args.config, args.checkpoint, args.images, args.out, topk=args.topk,
                     score_thr=args.score_thr, device=args.device, cfg_options=args.cfg_options,
                     trust_checkpoint=args.trust_checkpoint)
    done, bad = len(report['images']), len(report['unreadable'])
    print(f'{done} of {done + bad} images: {args.out}/predictions.json'
          + (f'; {bad} could not be read' if bad else ''))
    return 0 if done else 1
