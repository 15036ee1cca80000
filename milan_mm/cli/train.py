# SPDX-License-Identifier: Apache-2.0
"""Trains what a config describes."""
import argparse
import os

from . import options

EXAMPLES = """\
  milan train configs/milan/own_images.py --data-root DIR
  milan train configs/classification/own_finetune.py --data-root DIR --init-from CHECKPOINT
  milan train configs/milan/vitb_pretrain.py --devices 8 --resume"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add(parser, 'config')
    options.add_runner_options(parser, action='append', help='Training data instead of what the '
                               'config names: a folder, a list of images or a folder of shards. '
                               'In pretraining it may be given several times, DATA:2 with twice '
                               'the weight.')
    add_training_options(parser)
    parser.add_argument('--iters', type=int, metavar='N', help='Train for N iterations, for '
                        'configs that count these instead of epochs.')
    parser.add_argument('--amp', action='store_true', help='Train in mixed precision: bfloat16 '
                        'on GPUs from Ampere on and on CPUs that are faster with it, float16 on '
                        'older GPUs. The log says which.')
    parser.add_argument('--auto-scale-lr', action='store_true', help='Scale the learning rate from '
                        'the batch of the recipe to the batch of this run.')


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Those that ``milan pretrain`` has too."""
    parser.add_argument('--epochs', type=int, metavar='N', help='Train for N epochs; warm-up and '
                        'schedule shrink or grow with them.')
    parser.add_argument('--init-from', metavar='CHECKPOINT', help='Start the encoder (in '
                        'pretraining also the decoder, if it fits) from an earlier run, or from '
                        'weights of timm, Hugging Face, CLIP, MAE or DINOv2.')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT', help='Continue '
                        'a stopped run from this checkpoint, or from its latest.')
    parser.add_argument('--compile', action='store_true', help='Compile the loss with '
                        'torch.compile.')
    parser.add_argument('--dry-run', action='store_true', help='Check data, teacher, memory and '
                        'disk, take three steps, say how long the run would take, and end.')
    parser.add_argument('--verbose', action='store_true', help='Show environment, config, hooks '
                        'and parameter groups on the terminal, and not in the log file alone.')


def run(args: argparse.Namespace) -> None:
    from ..engine.train import train
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    train(args.config, work_dir=args.work_dir, data_root=args.data_root, epochs=args.epochs,
          iters=args.iters, init_from=args.init_from, resume=args.resume, amp=args.amp,
          auto_scale_lr=args.auto_scale_lr, compile=args.compile, launcher=args.launcher,
          cfg_options=args.cfg_options, trust_checkpoint=args.trust_checkpoint,
          verbose=args.verbose, dry_run=args.dry_run)
