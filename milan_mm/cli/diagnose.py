# SPDX-License-Identifier: Apache-2.0
"""Measures what an encoder is like inside: layers, heads, units, loss by importance.

The checkpoint of a pretraining holds everything but its teacher; of any other encoder that this
package reads, what needs no decoder is measured. Labels are not needed. Writes a PNG for each
measure, diagnosis.json, and index.html, which says how to read each.
"""
import argparse

from ..errors import MilanError
from . import options

EXAMPLES = """\
  milan diagnose CHECKPOINT --data DIR
  milan diagnose CHECKPOINT --data DIR --num-images 2000 --teacher ViT-B-16-quickgelu:openai"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add(parser, 'checkpoint', help='Checkpoint of a pretraining, or any encoder.')
    options.add(parser, '--data', '--config')
    options.add(parser, '--teacher', help='Where the teacher is now: a file, a folder, or '
                'MODEL:TAG; for a training on pixels or an encoder alone, a CLIP to compare its '
                'layers with.')
    parser.add_argument('--out', metavar='DIR', default='work_dirs/diagnosis', help='Folder for '
                        'the page and its figures (default: %(default)s).')
    options.add(parser, '--num-images', default=512, help='Number of images to look at (default: '
                '%(default)s).')
    options.add(parser, '--batch-size')
    options.add(parser, '--seed', help='Seed of the images that are chosen, and of the masks '
                '(default: %(default)s).')
    options.add(parser, '--device', '--trust-checkpoint', '--cfg-options')


def run(args: argparse.Namespace) -> None:
    from ..analysis.diagnosis.diagnose import diagnose
    from ..analysis.diagnosis.page import findings, write_diagnosis
    from ..analysis.diagnosis.subject import load_subject
    from ..inference.device import check_device
    if args.num_images < 8 or args.batch_size < 4:
        raise MilanError('--num-images must be at least 8 and --batch-size at least 4; got '
                         f'{args.num_images} and {args.batch_size}')
    subject = load_subject(args.checkpoint, args.config, args.teacher, args.cfg_options,
                           check_device(args.device), args.trust_checkpoint)
    result = diagnose(subject, args.data, args.num_images, args.batch_size, args.seed)
    page = write_diagnosis(result, args.out)
    for note in [*result['notes'], *(f'{name}: left out, {why}'
                                     for name, why in result['left_out'].items())]:
        print(note)
    for name, sentence in findings(result).items():
        print(f'{name}: {sentence}')
    print(f'page: {page}')
