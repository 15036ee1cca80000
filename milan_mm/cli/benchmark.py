# SPDX-License-Identifier: Apache-2.0
"""Measures this package beside mmpretrain on this machine.

Contenders take turns in one process, so that whatever else the machine does meets all of them; the
memory of each is measured in a process of its own. Each prints a table, and writes it as JSON.
"""
import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

from . import options

ARCHS = ('vit-b', 'vit-h', 'vit-l', 'vit-s')
COMPARED = ('vit-b', 'vit-l', 'vit-h')  # those that mmpretrain has, too
CONTENDERS = ('exact', 'compiled', 'bf16', 'bf16-compiled', 'fast', 'mae', 'mmpretrain',
              'mmpretrain-mae')
GRIDS = ('batch_size', 'img_size', 'mask_ratio', 'arch', 'processes')
VARIANTS = ('windowed', 'checkpointed', 'mmpretrain', 'relative', 'plain', 'tables')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest='kind', required=True, metavar='|'.join(KINDS))
    for name, kind in KINDS.items():
        sub = kinds.add_parser(name, help=kind.help, description=__doc__,
                               epilog=f'examples:\n  {kind.example}',
                               formatter_class=parser.formatter_class)
        kind.add_arguments(sub)
        sub.add_argument('--json', metavar='FILE', help='Also write the figures to this file.')


def run(args: argparse.Namespace) -> None:
    KINDS[args.kind].run(args)


def _add_step(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--arch', choices=COMPARED, default='vit-b', help='Size of the student '
                        '(default: %(default)s).')
    options.add(parser, '--batch-size', default=8)
    parser.add_argument('--steps', type=int, default=5, metavar='N', help='Number of timed steps '
                        'of each (default: %(default)s).')
    parser.add_argument('--contenders', nargs='+', choices=CONTENDERS, default=list(CONTENDERS),
                        help='Which of them (default: all).')
    _add_how(parser)
    options.add(parser, '--device')


def _add_how(parser: argparse.ArgumentParser) -> None:
    """What step and scale have both."""
    parser.add_argument('--no-memory', action='store_true', help='Leave out the memory, which '
                        'takes a process for each.')
    parser.add_argument('--clock', choices=('wall', 'cpu'), default='wall', help='Seconds of the '
                        'wall, or of the processor, for a machine that others use as well; the '
                        'latter with OMP_NUM_THREADS=1 (default: %(default)s).')


def _step(args: Any) -> None:
    from ..lab.benchmark.step import benchmark
    benchmark(args.arch, args.batch_size, args.steps, args.device, args.contenders,
              not args.no_memory, args.clock, args.json)


def _add_data(parser: argparse.ArgumentParser) -> None:
    options.add(parser, '--num-images', default=200, help='Number of images in a turn (default: '
                '%(default)s).')
    parser.add_argument('--turns', type=int, default=5, metavar='N', help='Number of timed turns '
                        'of each (default: %(default)s).')


def _data(args: Any) -> None:
    from ..lab.benchmark.data import benchmark
    benchmark(args.num_images, args.turns, args.json)


def _add_eval(parser: argparse.ArgumentParser) -> None:
    options.add(parser, '--batch-size', default=8)
    parser.add_argument('--turns', type=int, default=5, metavar='N', help='Number of timed turns '
                        'of each (default: %(default)s).')
    options.add(parser, '--device')


def _eval(args: Any) -> None:
    from ..lab.benchmark.eval import benchmark
    benchmark(args.batch_size, args.turns, args.device, args.json)


def _add_scale(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--varied', nargs='+', choices=GRIDS, default=list(GRIDS), help='What '
                        'varies, one after the other (default: all).')
    parser.add_argument('--steps', type=int, default=3, metavar='N', help='Number of timed steps '
                        'of each (default: %(default)s).')
    _add_how(parser)
    options.add(parser, '--device')


def _scale(args: Any) -> None:
    from ..lab.benchmark.scale import benchmark
    benchmark(args.varied, args.steps, args.device, not args.no_memory, args.clock, args.json)


def _add_downstream(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--arch', choices=ARCHS, default='vit-b', help='Size of the backbone '
                        '(default: %(default)s).')
    options.add(parser, '--img-size', default=1024, help='Side of the image in pixels (default: '
                '%(default)s).')
    options.add(parser, '--batch-size', default=1)
    parser.add_argument('--variants', nargs='+', choices=VARIANTS, default=list(VARIANTS),
                        help='Which backbones (default: all).')


def _downstream(args: Any) -> None:
    from ..lab.benchmark.downstream import benchmark
    benchmark(args.arch, args.img_size, args.batch_size, args.variants, args.json)


def _add_check(parser: argparse.ArgumentParser) -> None:
    options.add(parser, '--device')
    parser.add_argument('--quick', action='store_true', help='Few steps and small batches, as for '
                        'a CPU.')


def _check(args: Any) -> None:
    from ..lab.benchmark.check import benchmark
    benchmark(args.device, args.quick, args.json)


class _Kind(NamedTuple):
    help: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Any], None]


KINDS = dict(
    step=_Kind('Time and memory of a training step, against mmpretrain.',
               'milan benchmark step --batch-size 64 --device cuda', _add_step, _step),
    data=_Kind('Images per second and core from files to a batch, against mmpretrain.',
               'milan benchmark data --num-images 500', _add_data, _data),
    eval=_Kind('Images per second of features and of the k-NN vote, against mmpretrain.',
               'milan benchmark eval --batch-size 64 --device cuda', _add_eval, _eval),
    scale=_Kind('How a step grows with batch, image, model and mask ratio.',
                'milan benchmark scale --varied batch_size mask_ratio', _add_scale, _scale),
    downstream=_Kind('Time and memory of a backbone for detection, against mmpretrain.',
                     'milan benchmark downstream --arch vit-l --img-size 512 --variants windowed',
                     _add_downstream, _downstream),
    check=_Kind('Whether everything trains as it should on a device.',
                'milan benchmark check --device cpu --quick', _add_check, _check),
)
EXAMPLES = '\n'.join(f'  {kind.example}' for kind in KINDS.values())
