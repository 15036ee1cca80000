# SPDX-License-Identifier: Apache-2.0
"""From a config and a checkpoint to an evaluation by the config's own metrics."""
import json
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.runner import Runner

from ..checkpoints.io import write_atomically
from ..checkpoints.remote import read_from_anywhere
from ..compat.any_file_name import write_any_name
from ..compat.dead_workers import end_without_the_dead
from ..compat.gloo_launch import init_gloo_where_no_cuda
from ..compat.quiet_runner import quiet_runner
from ..compat.safe_load import install_safe_loading
from ..compat.sync_bn import replace_sync_bn
from ..config.annotations import DataCheck, without_masks
from ..config.data_paths import check_data
from ..config.own_data import fill_num_classes
from ..errors import MilanError
from ..inference.checkpoint import Checkpoint
from ..unwrapped import unwrapped
from .building import building
from .train import forget_start, prepare_config


def test(config: str | Path, checkpoint: str | Path, *, out: str | Path | None = None,
         work_dir: str | Path | None = None, data_root: str | None = None,
         launcher: str = 'none', cfg_options: dict | None = None,
         trust_checkpoint: bool = False) -> dict:
    """Evaluates a checkpoint by the metrics of its config, and gives them.

    Args:
        config: with a ``test_dataloader``.
        checkpoint: of a training with that config.
        out: JSON file to write the metrics to.
        work_dir, data_root, launcher, cfg_options, trust_checkpoint: as of
            :func:`milan_mm.engine.train.train`.

    Raises:
        MilanError: if the config tests nothing, or the checkpoint is not there or not of it.
    """
    cfg = prepare_config(config, work_dir, data_root, launcher, cfg_options)
    if cfg.get('test_dataloader') is None:
        raise MilanError(f'{config} has no test_dataloader: a pretraining has no test set of '
                         'its own. Measure its encoder with: milan eval CHECKPOINT --data DIR')
    if not Path(checkpoint).expanduser().is_file():
        raise MilanError(f'no such checkpoint: {checkpoint}')
    with building(cfg):
        cfg.load_from = None
        forget_start(cfg)
        check_data(cfg, ('test_dataloader', ))
        fill_num_classes(cfg, DataCheck(cfg, loaders=('test_dataloader', )))
        loaded = Checkpoint(checkpoint, cfg, trust=trust_checkpoint)
        if loaded.has_boxes_alone:
            without_masks(cfg)
        end_without_the_dead()
        install_safe_loading(read_from_anywhere, trust_checkpoint)
        init_gloo_where_no_cuda(cfg)
        replace_sync_bn(cfg)
        with quiet_runner():
            runner = Runner.from_cfg(cfg)
        write_any_name(runner.logger)
        _ = runner.test_loop
    # mmengine's own loading passes over what is missing or left over with a warning.
    model = unwrapped(runner.model)
    loaded.load_into(model)
    metrics = runner.test()
    if out and is_main_process():
        plain = {name: float(value) for name, value in metrics.items()}
        write_atomically(out, lambda path: path.write_text(json.dumps(plain, indent=2) + '\n'))
    return metrics
