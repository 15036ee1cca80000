# SPDX-License-Identifier: Apache-2.0
"""From a command line to an evaluation by the config's own metrics."""
import argparse
import os
from pathlib import Path

from mmengine.runner import Runner

from ..compat.gloo_launch import init_gloo_where_no_cuda
from ..compat.safe_load import install_safe_loading
from ..errors import MilanError
from .cli import add_runner_options
from .data_paths import check_data, move_data
from .train import forget_start, read_config


def test_parser(description: str) -> argparse.ArgumentParser:
    """The options of OpenMMLab's test.py."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file with a test_dataloader')
    parser.add_argument('checkpoint', help='checkpoint of a training with that config')
    add_runner_options(parser)
    return parser


def test(args: argparse.Namespace) -> dict:
    """Runs what the arguments say and gives the metrics.

    Raises:
        MilanError: if the config tests nothing or the checkpoint is not there.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if cfg.get('test_dataloader') is None:
        raise MilanError(f'{args.config} has no test_dataloader: a pretraining has no test set of '
                         'its own. Measure its encoder with tools/eval_features.py CHECKPOINT '
                         '--data DIR')
    if not Path(args.checkpoint).expanduser().is_file():
        raise MilanError(f'no such checkpoint: {args.checkpoint}')
    cfg.launcher, cfg.load_from = args.launcher, args.checkpoint
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    if args.data_root:
        move_data(cfg, args.data_root)
    forget_start(cfg)
    check_data(cfg, ('test_dataloader', ))
    install_safe_loading(args.trust_checkpoint)
    init_gloo_where_no_cuda(cfg)
    return Runner.from_cfg(cfg).test()
