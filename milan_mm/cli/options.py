# SPDX-License-Identifier: Apache-2.0
"""The options that several commands have, each spelt and explained once."""
import argparse
from collections.abc import Sequence
from typing import Any


class CfgOptions(argparse.Action):
    """``DictAction`` of mmengine, imported when it is needed: it imports PyTorch."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
                 values: str | Sequence[Any] | None, option_string: str | None = None) -> None:
        wrong = [value for value in values or () if '=' not in value]
        if wrong:
            parser.error(f'{option_string} takes KEY=VALUE, got {wrong[0]!r}')
        from mmengine.config import DictAction
        DictAction(self.option_strings, self.dest)(parser, namespace, values, option_string)


SHARED: dict[str, dict[str, Any]] = {
    'config': dict(metavar='CONFIG', help='Config file.'),
    'checkpoint': dict(metavar='CHECKPOINT', help='Checkpoint of a training with that config.'),
    'images': dict(metavar='IMAGES', nargs='+', help='Images, or folders of them.'),
    '--config': dict(metavar='FILE', help='Config of the training (default: the one saved in the '
                     'checkpoint).'),
    '--data-root': dict(metavar='DIR', help='Folder of the training set, instead of the one that '
                        'the config names.'),
    '--data': dict(metavar='DIR', required=True, help='Folder of images, sub-folders included.'),
    '--work-dir': dict(metavar='DIR', help='Folder for logs and checkpoints (default: '
                       'work_dirs/<name of the config>).'),
    '--teacher': dict(metavar='SPEC', help='Where the teacher is: a file, a folder, a name of '
                      'milan_mm.list_models() such as demo/teacher, or MODEL:TAG in the names of '
                      'open_clip, such as ViT-B-16-quickgelu:openai.'),
    '--num-images': dict(type=int, metavar='N', help='Number of images.'),
    '--img-size': dict(type=int, metavar='PIXELS', help='Side of the images in pixels.'),
    '--batch-size': dict(type=int, default=64, metavar='N',
                         help='Number of images in a batch (default: %(default)s).'),
    '--workers': dict(type=int, default=2, metavar='N', help='Number of processes that read images '
                      '(default: %(default)s; 0: none besides this one).'),
    '--seed': dict(type=int, default=0, metavar='N',
                   help='Seed of what is drawn (default: %(default)s).'),
    '--device': dict(metavar='DEVICE', help='Where to compute, such as cuda:1 or cpu (default: '
                     'cuda if there is a GPU, else cpu).'),
    '--trust-checkpoint': dict(action='store_true', help='Also load pickles that hold more than '
                               'tensors. They can run any code: only for files from people you '
                               'trust.'),
    '--weights': dict(choices=['ema', 'raw'], help='Of a file that holds both: the averaged '
                      'weights or the raw ones (default: the averaged ones).'),
    '--launcher': dict(choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                       help='What has started the processes of a distributed run.'),
    '--cfg-options': dict(nargs='+', action=CfgOptions, metavar='KEY=VALUE', help='Change entries '
                          'of the config, such as train_dataloader.batch_size=64; a + before '
                          'the key sets one that the config does not have.'),
}


def add(parser: argparse.ArgumentParser, *names: str, **changes: Any) -> None:
    """Adds shared arguments; ``changes`` are of all those named, such as another help text."""
    for name in names:
        parser.add_argument(name, **{**SHARED[name], **changes})


def add_runner_options(parser: argparse.ArgumentParser, **data_root: Any) -> None:
    """What OpenMMLab's train.py and test.py have both; ``data_root`` changes that option."""
    add(parser, '--data-root', **data_root)
    add(parser, '--work-dir', '--trust-checkpoint', '--cfg-options')
    add_launcher(parser)


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """How several processes come to be one run."""
    parser.add_argument('--devices', type=int, metavar='N', help='Number of processes to start on '
                        'this machine, one for each GPU; without CUDA, CPU processes over gloo.')
    parser.add_argument('--nodes', type=int, metavar='N', help='Number of machines (default: 1). '
                        'Each runs this command with its own NODE_RANK, and the MASTER_ADDR and '
                        'PORT of the first, in the environment.')
    add(parser, '--launcher')
    # torch.distributed.launch gives it; torchrun sets the variable itself.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
