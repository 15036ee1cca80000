# SPDX-License-Identifier: Apache-2.0
"""Starts a command once a device, through PyTorch's own launcher, and says in a line how it ended.

``torchrun`` does the same, and ends with forty lines of its own after a process that has already
said in one what is wrong.
"""
import argparse
import logging
import os
import signal
import sys
from pathlib import Path

from ..errors import MilanError

_PACKAGE = Path(__file__).resolve().parents[1]


def is_launched(args: argparse.Namespace) -> bool:
    """Whether the command is to be started once a device, rather than run here.

    Raises:
        MilanError: for options that contradict each other.
    """
    devices, nodes = getattr(args, 'devices', None), getattr(args, 'nodes', None)
    if devices is None and nodes is None or 'TORCHELASTIC_RUN_ID' in os.environ:
        return False
    if args.launcher != 'none':
        raise MilanError(f'--devices and --nodes start the processes themselves; --launcher '
                         f'{args.launcher} says that something else does. Leave one of them out')
    for name, value in (('--devices', devices), ('--nodes', nodes)):
        if value is not None and value < 1:
            raise MilanError(f'{name} must be at least 1, got {value}')
    if devices is None:
        raise MilanError('--nodes needs --devices, the number of processes on each machine')
    return True


def launch(args: argparse.Namespace) -> int:
    """Runs the command in ``args.devices`` processes and gives their exit code.

    Of several machines, each runs the same command with its own ``NODE_RANK``; ``MASTER_ADDR`` and
    ``PORT`` are those of the first.
    """
    env, several = os.environ, (args.nodes or 1) > 1
    if several:
        # The first machine's store is gone before the others' last question to it, which PyTorch
        # reports with thirty lines of frames after a training that is done.
        env.setdefault('TORCH_CPP_LOG_LEVEL', 'ERROR')
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger('torch.distributed.elastic').setLevel(logging.CRITICAL)
    if several:
        logging.getLogger('torch.distributed.elastic.agent.server.api').setLevel(logging.CRITICAL)
    paths = [str(_PACKAGE.parent), *filter(None, env.get('PYTHONPATH', '').split(os.pathsep))]
    env['PYTHONPATH'] = os.pathsep.join(paths)
    env.setdefault('OMP_NUM_THREADS', str(max((os.cpu_count() or 1) // args.devices, 1)))
    options = [f'--nproc_per_node={args.devices}', f'--nnodes={args.nodes or 1}',
               f'--node_rank={env.get("NODE_RANK", 0)}', '--master_addr='
               + env.get('MASTER_ADDR', '127.0.0.1'), f'--master_port={env.get("PORT", 29500)}']
    words = ['-m', 'milan_mm', *args.words, '--launcher', 'pytorch']
    try:
        torchrun.run(torchrun.parse_args([*options, *words]))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            print(f'error: process {rank} of {args.devices * (args.nodes or 1)} was ended by '
                  f'{name}, so the others were stopped', file=sys.stderr)
            return 128 - failure.exitcode
        return failure.exitcode
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0
