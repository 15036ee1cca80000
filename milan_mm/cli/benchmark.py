# SPDX-License-Identifier: Apache-2.0
"""Measures the time of a training step, or the memory of a detector's backbone.

step: MILAN's training step here against that of mmpretrain's own MILAN, as a ratio. Both models,
with the same sizes, images and randomly weighted CLIP teacher, take their steps in turns in one
process, so that whatever else the machine does meets both.

memory: a forward and backward pass of a backbone with windows, with checkpointing, and with global
attention, each in a process of its own, on the CPU.
"""
import argparse
from typing import Any

from . import options

ARCHS = ('vit-b', 'vit-h', 'vit-l', 'vit-s')
COMPARED = ('vit-b', 'vit-l', 'vit-h')  # those that mmpretrain has, too
VARIANTS = ('windowed', 'checkpointed', 'relative', 'plain', 'tables')
STEP_EXAMPLE = '  milan benchmark step --batch-size 64 --device cuda'
MEMORY_EXAMPLE = '  milan benchmark memory --arch vit-l --img-size 512 --variants windowed plain'
EXAMPLES = f'{STEP_EXAMPLE}\n{MEMORY_EXAMPLE}'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest='kind', required=True, metavar='step|memory')
    how: dict[str, Any] = dict(description=__doc__, formatter_class=parser.formatter_class)
    step = kinds.add_parser('step', help='Time of a training step, against mmpretrain.',
                            epilog=f'examples:\n{STEP_EXAMPLE}', **how)
    step.add_argument('--arch', choices=COMPARED, default='vit-b', help='Size of the student '
                      '(default: %(default)s).')
    options.add(step, '--batch-size', default=8)
    step.add_argument('--steps', type=int, default=5, metavar='N', help='Number of timed steps of '
                      'each (default: %(default)s).')
    options.add(step, '--device')
    memory = kinds.add_parser('memory', help='Memory of a backbone for detection.',
                              epilog=f'examples:\n{MEMORY_EXAMPLE}', **how)
    memory.add_argument('--arch', choices=ARCHS, default='vit-b', help='Size of the backbone '
                        '(default: %(default)s).')
    options.add(memory, '--img-size', default=1024, help='Side of the image in pixels (default: '
                '%(default)s).')
    options.add(memory, '--batch-size', default=1)
    memory.add_argument('--variants', nargs='+', choices=VARIANTS, default=list(VARIANTS),
                        help='Which backbones (default: all).')


def run(args: argparse.Namespace) -> None:
    if args.kind == 'step':
        from ..lab.benchmark.step import benchmark
        benchmark(args.arch, args.batch_size, args.steps, args.device)
    else:
        from ..lab.benchmark.memory import measure_all
        measure_all(args.arch, args.img_size, args.batch_size, args.variants)
