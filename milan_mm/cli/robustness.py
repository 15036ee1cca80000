# SPDX-License-Identifier: Apache-2.0
"""Measures classifiers on images unlike those of their training.

The suites are ImageNet-A, -R, -Sketch and -C, and the 15 corruptions of ImageNet-C made on the fly
of images of your own. See docs/robustness.md.
"""
import argparse

from . import options

SUITES = ('imagenet-a', 'imagenet-r', 'imagenet-sketch', 'imagenet-c', 'corruptions')
CORRUPTIONS = (
    'gaussian_noise', 'shot_noise', 'impulse_noise', 'defocus_blur', 'glass_blur', 'motion_blur',
    'zoom_blur', 'snow', 'frost', 'fog', 'brightness', 'contrast', 'elastic_transform', 'pixelate',
    'jpeg_compression')
SEVERITIES = (1, 2, 3, 4, 5)
EXAMPLES = """\
  milan robustness CONFIG milan=a/epoch_100.pth mae=b/epoch_100.pth --suite corruptions \\
      --data DIR/val --out results
  milan robustness CONFIG CHECKPOINT --suite imagenet-r --data imagenet-r --clean imagenet/val"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add(parser, 'config', help='Config file of a classifier.')
    parser.add_argument('checkpoints', nargs='+', metavar='[NAME=]CHECKPOINT', help='Checkpoints '
                        'of trainings with that config, to be compared side by side.')
    parser.add_argument('--suite', required=True, choices=SUITES, help='What to measure on.')
    options.add(parser, '--data', help='Folder of the suite; for corruptions a folder of images, '
                '<class>/<image>.')
    parser.add_argument('--clean', metavar='DIR', help='Measure also on these images of the same '
                        'classes without corruption, such as val/<class>/<image> of ImageNet '
                        '(the suite corruptions does so anyway).')
    parser.add_argument('--corruptions', nargs='+', default=list(CORRUPTIONS), metavar='NAME',
                        choices=CORRUPTIONS, help='Which corruptions (default: all 15): '
                        '%(choices)s.')
    parser.add_argument('--severities', nargs='+', type=int, default=list(SEVERITIES), metavar='S',
                        choices=SEVERITIES, help='Severities of the suite corruptions (default: '
                        '1 2 3 4 5).')
    parser.add_argument('--out', metavar='DIR', help='Folder for results.json, results.csv and '
                        'plots.')
    options.add(parser, '--seed', help='Seed of what corruptions draw (default: %(default)s).')
    options.add(parser, '--batch-size', '--workers', '--device', '--trust-checkpoint',
                '--cfg-options')


def run(args: argparse.Namespace) -> None:
    from ..analysis.robustness.compare import compare_classifiers
    compare_classifiers(
        args.config, args.checkpoints, args.suite, args.data, clean=args.clean,
        corruptions=args.corruptions, severities=args.severities, out=args.out, seed=args.seed,
        batch_size=args.batch_size, workers=args.workers, device=args.device,
        cfg_options=args.cfg_options, trust_checkpoint=args.trust_checkpoint)
