# SPDX-License-Identifier: Apache-2.0
"""Evaluates a checkpoint on the test set that a config describes."""
import argparse
import os

from . import options

EXAMPLES = """\
  milan test configs/classification/own_finetune.py CHECKPOINT --data-root DIR
  tools/dist_test.sh configs/mask_rcnn/vitb_coco_lsj1024_100e.py CHECKPOINT 8 --out metrics.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add(parser, 'config', help='Config file with a test_dataloader.')
    options.add(parser, 'checkpoint')
    options.add_runner_options(parser)
    parser.add_argument('--out', metavar='FILE', help='JSON file to write the metrics to.')


def run(args: argparse.Namespace) -> None:
    from ..engine.test import test
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    test(args.config, args.checkpoint, out=args.out, work_dir=args.work_dir,
         data_root=args.data_root, launcher=args.launcher, cfg_options=args.cfg_options,
         trust_checkpoint=args.trust_checkpoint)
