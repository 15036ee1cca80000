# SPDX-License-Identifier: Apache-2.0
"""From a config to a running training."""
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import Tensor

from ..checkpoints.remote import read_from_anywhere
from ..checkpoints.zoo import located
from ..compat.any_file_name import write_any_name
from ..compat.gloo_launch import init_gloo_where_no_cuda
from ..compat.quiet_runner import quiet_runner
from ..compat.safe_load import install_safe_loading
from ..compat.sync_bn import replace_sync_bn
from ..config.batch import apply_plan, plan_batch
from ..config.check import check_config
from ..config.data_paths import check_data, settle_workers
from ..config.formats import take_formats
from ..config.options import merge_options
from ..config.read import read_config
from ..config.sane_numbers import check_numbers
from ..config.schedule import set_length
from ..config.sources import Roots, move_to, name_kinds
from ..datasets.listings import keep_listings
from ..datasets.loading import keep_notes
from ..errors import MilanError
from ..unwrapped import unwrapped
from .building import building
from .dry_run import dry_run as take_first_steps
from .first_process import with_classes
from .hooks import check_batches
from .lock import only_training_in
from .loops import go_on_exactly
from .phases import check_phases
from .place import PlaceHook
from .precision import set_amp
from .resume import CheckedLoadingHook, find_resumed
from .saving import save_wholly
from .target_cache import keep_targets


def train(config: str | Path, *, work_dir: str | Path | None = None, data_root: Roots | None = None,
          epochs: int | None = None, iters: int | None = None, init_from: str | None = None,
          resume: str | None = None, amp: bool = False, auto_scale_lr: bool = False,
          compile: bool = False, launcher: str = 'none', cfg_options: dict | None = None,
          trust_checkpoint: bool = False, verbose: bool = False,
          dry_run: bool = False) -> Path:
    """Trains what a config describes.

    Args:
        config: its file.
        work_dir: folder for logs and checkpoints; None for the config's own, or else
            ``work_dirs/<name of the config>``.
        data_root: the training data instead of the config's: a folder, a list, shards, or for
            pretraining several of these, see :func:`move_to`.
        epochs: to train for; warm-up and schedule shrink or grow with them.
        iters: the same for configs that count iterations.
        init_from: checkpoint that the encoder starts from, see :func:`start_from`.
        resume: checkpoint of a stopped run to go on from; 'auto' for its latest.
        amp: mixed precision, see :func:`milan_mm.engine.precision.set_amp`.
        auto_scale_lr: scale the learning rate from the recipe's batch to this run's.
        compile: the loss, with ``torch.compile``.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
        cfg_options: changes of the config, dotted keys to values.
        trust_checkpoint: see :func:`read_checkpoint`.
        verbose: show all that mmengine logs; otherwise environment, config, hooks and parameter
            groups go to the log file alone.
        dry_run: check everything, take three steps, say what the run would take, and leave nothing.

    Returns:
        The folder of logs and checkpoints.

    Raises:
        MilanError: for what is the user's to mend, before the first step where it can be known.
    """
    cfg = prepare_config(config, work_dir, data_root, launcher, cfg_options, training=True)
    with building(cfg):
        if epochs is not None or iters is not None:
            set_length(cfg, epochs, iters)
        if init_from:
            start_from(cfg, init_from, trust_checkpoint)
        if resume:
            cfg.resume = True
            cfg.load_from = None if resume == 'auto' else resume
        if auto_scale_lr:
            cfg.setdefault('auto_scale_lr', {})['enable'] = True
        set_amp(cfg, amp)
        install_safe_loading(read_from_anywhere, trust_checkpoint)
        check_numbers(cfg)
        check_data(cfg)
    if dry_run:
        with building(cfg):
            take_first_steps(cfg, lambda cfg: build_runner(cfg, compile, verbose))
        return Path(cfg.work_dir)
    with only_training_in(cfg.work_dir, launcher):
        with building(cfg):
            runner = build_runner(cfg, compile, verbose)
        runner.train()
    return Path(cfg.work_dir)


def build_runner(cfg: Config, compile: bool = False, verbose: bool = False) -> Any:
    """The runner of a config that says everything, checked as far as can be before its first step.

    Raises:
        MilanError: if the data, the batch or what is resumed from is nothing to train with.
    """
    keep_notes(cfg.work_dir)
    keep_listings(cfg.work_dir)
    init_gloo_where_no_cuda(cfg)
    cfg = with_classes(cfg)
    replace_sync_bn(cfg)
    find_resumed(cfg)
    save_wholly(cfg)
    keep_targets(cfg)
    go_on_exactly(cfg)
    words = apply_plan(cfg, plan_batch(cfg, world_size(cfg.launcher)))
    with contextlib.nullcontext() if verbose else quiet_runner():
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    write_any_name(runner.logger)
    print_log(words, logger='current')
    runner.register_hook(PlaceHook(bool(cfg.get('resume'))))
    if cfg.get('load_from'):
        runner.register_hook(CheckedLoadingHook(cfg.load_from, bool(cfg.get('resume'))))
    if compile:
        compile_loss(runner.model)
    if isinstance(runner, Runner):  # FlexibleRunner builds its loop later; the hook checks there
        _ = runner.train_loop
        check_batches(runner.train_dataloader)
        check_phases(runner)
        # What training would build first, in its order, so that a mistake shows before it.
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        if runner.param_schedulers is not None:
            runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
        _ = runner.val_loop
    return runner


def prepare_config(config: str | Path, work_dir: str | Path | None, data_root: Roots | None,
                   launcher: str, cfg_options: dict | None, training: bool = False) -> Config:
    """A config with what training and test are told alike; arguments as of :func:`train`."""
    cfg = read_config(config)
    cfg.launcher = launcher
    cfg.work_dir = str(work_dir or cfg.get('work_dir') or f'work_dirs/{Path(config).stem}')
    merge_options(cfg, cfg_options)
    check_config(cfg, config, training)
    with building(cfg):
        if data_root:
            move_to(cfg, data_root)
        name_kinds(cfg)
        take_formats(cfg)
    settle_workers(cfg)
    return cfg


def start_from(cfg: Config, checkpoint: str, trust: bool) -> None:
    """``--init-from``: a pretraining's student, or a finetuning's backbone.

    Raises:
        MilanError: if there is no such file or model, or the config's model takes none.
    """
    try:
        checkpoint = str(located(checkpoint))
    except MilanError as error:
        raise MilanError(f'--init-from: {error}') from error
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


def world_size(launcher: str) -> int:
    """Processes that will train; slurm's and mpi's groups do not exist yet."""
    names = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')
    name: str | None = names.get(launcher)
    return int(os.environ.get(name, get_world_size())) if name else 1


def compile_loss(model: torch.nn.Module) -> None:
    """Compiles the pretraining step, within a wrapper for several processes too.

    The number of images is left open, so that an epoch's last batch, which may be short, takes the
    same graph as the others. Images of another size take another graph.
    """
    module = unwrapped(model)
    compiled: Callable[..., dict[str, Tensor]] = torch.compile(module.loss, fullgraph=True)

    def loss(inputs: Tensor, data_samples: list | None = None,
             sample_keys: Tensor | None = None) -> dict[str, Tensor]:
        for batch in (inputs, sample_keys):
            if batch is not None:
                torch._dynamo.mark_dynamic(batch, 0)
        for side in (2, 3):  # else it is left open from its first change on, and all of it slower
            torch._dynamo.mark_static(inputs, side)
        return compiled(inputs, None, sample_keys)

    module.loss = loss
