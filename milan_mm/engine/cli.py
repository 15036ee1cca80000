# SPDX-License-Identifier: Apache-2.0
"""What every command line tool does the same way."""
import argparse
import sys
from collections.abc import Callable

from mmengine.config import DictAction

from ..compat.no_ghostscript import forbid_ghostscript
from ..errors import MilanError


def run_tool(main: Callable[[], int | None]) -> int:
    """Runs a tool's ``main``; the user's own mistakes end in one line and exit code 2."""
    forbid_ghostscript()
    try:
        return main() or 0
    except MilanError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('stopped by the keyboard', file=sys.stderr)
        return 130
    except BrokenPipeError:  # `tool | head` has seen enough
        sys.stderr.close()
        return 141


def add_runner_options(parser: argparse.ArgumentParser) -> None:
    """The options that OpenMMLab's train.py and test.py share."""
    parser.add_argument('--work-dir', help='where logs and checkpoints go; work_dirs/<config>')
    parser.add_argument('--data-root', help='folder of images, instead of the config\'s')
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='load pickles that need more than tensors, which can run code')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='change values of the config, e.g. train_dataloader.batch_size=64')
