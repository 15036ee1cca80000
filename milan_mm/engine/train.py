# SPDX-License-Identifier: Apache-2.0
"""From a command line to a running training."""
import argparse
import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..checkpoints.remote import read_from_anywhere
from ..compat.gloo_launch import init_gloo_where_no_cuda
from ..compat.safe_load import install_safe_loading
from ..compat.sync_bn import replace_sync_bn
from ..config.batch import apply_plan, plan_batch
from ..config.data_paths import check_data, move_data
from ..config.own_data import fill_num_classes
from ..config.read import merge_options, read_config
from ..config.schedule import set_length
from ..datasets.loading import keep_notes
from ..errors import MilanError
from .cli import add_runner_options
from .hooks import check_batches


def train_parser(description: str) -> argparse.ArgumentParser:
    """The options OpenMMLab's users know, and a few of this project's."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file')
    add_runner_options(parser)
    parser.add_argument('--epochs', type=int, help='train for so many epochs; warm-up and schedule '
                        'shrink or grow with them')
    parser.add_argument('--iters', type=int, help='the same for configs that count iterations')
    parser.add_argument('--init-from', metavar='CHECKPOINT',
                        help='start the encoder (in pretraining the decoder too, if it fits) from '
                        'an earlier run, or from weights of timm, Hugging Face, CLIP, MAE, DINOv2')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='continue a stopped run; without a value, from its latest checkpoint')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate from the recipe\'s batch to this run\'s')
    parser.add_argument('--compile', action='store_true', help='torch.compile the loss')
    return parser


def train(args: argparse.Namespace) -> None:
    """Runs what the arguments say.

    Raises:
        MilanError: for what is the user's to mend, before the first step where it can be known.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = merge_arguments(read_config(args.config), args)
    check_data(cfg)
    fill_num_classes(cfg)
    keep_notes(cfg.work_dir)
    install_safe_loading(read_from_anywhere, args.trust_checkpoint)
    init_gloo_where_no_cuda(cfg)
    replace_sync_bn(cfg)
    words = apply_plan(cfg, plan_batch(cfg, world_size(args.launcher)))
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    print_log(words, logger='current')
    if args.compile:
        compile_loss(runner.model)
    if isinstance(runner, Runner):  # FlexibleRunner builds its loop later; the hook checks there
        _ = runner.train_loop
        check_batches(runner.train_dataloader)
    runner.train()


def merge_arguments(cfg: Config, args: argparse.Namespace) -> Config:
    """Puts the command line's choices into the config."""
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    merge_options(cfg, args.cfg_options)
    if args.data_root:
        move_data(cfg, args.data_root)
    if args.epochs is not None or args.iters is not None:
        set_length(cfg, args.epochs or 0, args.iters or 0)
    if args.init_from:
        start_from(cfg, args.init_from, args.trust_checkpoint)
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.auto_scale_lr:
        cfg.setdefault('auto_scale_lr', {})['enable'] = True
    set_amp(cfg, args.amp)
    return cfg


def start_from(cfg: Config, checkpoint: str, trust: bool) -> None:
    """``--init-from``: a pretraining's student, or a finetuning's backbone.

    Raises:
        MilanError: if there is no such file or the config's model takes none.
    """
    if not Path(checkpoint).expanduser().exists():
        raise MilanError(f'--init-from: no such file: {checkpoint}')
    start = cfg.model.get('backbone', {}).get('init_cfg') or {}
    if str(start.get('type', '')).endswith('PretrainedViT'):
        start.update(checkpoint=checkpoint, trust=trust)
    elif cfg.model.get('type', '').endswith('MILAN'):
        cfg.model.update(init_from=checkpoint, trust_init_from=trust)
    else:
        raise MilanError("--init-from: this config's backbone takes no checkpoint; give it "
                         "init_cfg=dict(type='milan_mm.PretrainedViT', checkpoint=None)")


def forget_start(cfg: Config) -> None:
    """Takes out where the backbone started from: a checkpoint of the whole model follows."""
    if cfg.model.get('backbone', {}).get('init_cfg'):
        cfg.model.backbone.init_cfg = None


def set_amp(cfg: Config, asked: bool) -> None:
    """Mixed precision if config or user ask for it; float32 where mmengine has none (CPU)."""
    wrapper = cfg.optim_wrapper
    if asked:
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
    if wrapper.get('type') == 'AmpOptimWrapper' and not torch.cuda.is_available():
        wrapper.type = 'OptimWrapper'
        wrapper.pop('dtype', None)
        wrapper.pop('loss_scale', None)
        print_log('mixed precision is off: it needs a CUDA device, and this run is on the CPU')


def world_size(launcher: str) -> int:
    """Processes that will train; slurm's and mpi's groups do not exist yet."""
    names = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')
    name: str | None = names.get(launcher)
    return int(os.environ.get(name, get_world_size())) if name else 1


def compile_loss(model: torch.nn.Module) -> None:
    """Compiles the pretraining step, within a wrapper for several processes too."""
    module = model.module if is_model_wrapper(model) else model
    module.loss = torch.compile(module.loss, fullgraph=True)
