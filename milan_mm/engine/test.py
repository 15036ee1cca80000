# SPDX-License-Identifier: Apache-2.0
"""From a command line to an evaluation by the config's own metrics."""
import argparse
import json
import os
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ..checkpoints.io import read_checkpoint, state_of, write_atomically
from ..checkpoints.remote import read_from_anywhere
from ..compat.gloo_launch import init_gloo_where_no_cuda
from ..compat.safe_load import install_safe_loading
from ..compat.sync_bn import replace_sync_bn
from ..config.data_paths import check_data, move_data
from ..config.own_data import fill_num_classes
from ..config.read import merge_options, read_config
from ..errors import MilanError
from ..inference.tasks import load_strictly
from .cli import add_runner_options
from .train import forget_start


def test_parser(description: str) -> argparse.ArgumentParser:
    """The options of OpenMMLab's test.py."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file with a test_dataloader')
    parser.add_argument('checkpoint', help='checkpoint of a training with that config')
    parser.add_argument('--out', metavar='FILE.json', help='write the metrics there as well')
    add_runner_options(parser)
    return parser


def test(args: argparse.Namespace) -> dict:
    """Runs what the arguments say and gives the metrics.

    Raises:
        MilanError: if the config tests nothing, or the checkpoint is not there or not of it.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config)
    merge_options(cfg, args.cfg_options)
    if cfg.get('test_dataloader') is None:
        raise MilanError(f'{args.config} has no test_dataloader: a pretraining has no test set of '
                         'its own. Measure its encoder with tools/eval_features.py CHECKPOINT '
                         '--data DIR')
    if not Path(args.checkpoint).expanduser().is_file():
        raise MilanError(f'no such checkpoint: {args.checkpoint}')
    cfg.launcher, cfg.load_from = args.launcher, None
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    if args.data_root:
        move_data(cfg, args.data_root)
    forget_start(cfg)
    check_data(cfg, ('test_dataloader', ))
    fill_num_classes(cfg)
    install_safe_loading(read_from_anywhere, args.trust_checkpoint)
    init_gloo_where_no_cuda(cfg)
    replace_sync_bn(cfg)
    runner = Runner.from_cfg(cfg)
    # mmengine's own loading passes over what is missing or left over with a warning.
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    checkpoint = read_checkpoint(args.checkpoint, args.trust_checkpoint)
    load_strictly(model, state_of(checkpoint), args.checkpoint)
    metrics = runner.test()
    if args.out and is_main_process():
        plain = {name: float(value) for name, value in metrics.items()}
        write_atomically(args.out, lambda path: path.write_text(json.dumps(plain, indent=2) + '\n'))
    return metrics
