# SPDX-License-Identifier: Apache-2.0
"""mmengine's pytorch launcher cannot start on a CPU.

It calls ``torch.cuda.set_device``, and gives DDP a device id by default (0.10.x). Its Runner skips
the initialisation when a process group exists already, and gives no id when the wrapper is
configured, so on a machine without CUDA a gloo group is made first and the wrapper named. Its FSDP
strategy takes the local rank for the number of a CUDA device unless a device is given.
"""
import os

import torch
from mmengine.config import Config
from torch import distributed as dist


def init_gloo_where_no_cuda(cfg: Config) -> None:
    """Makes the process group that mmengine cannot make here.

    Args:
        cfg: of the run; only ``launcher = 'pytorch'`` needs help.
    """
    if cfg.get('launcher') != 'pytorch' or torch.cuda.is_available() or dist.is_initialized():
        return
    dist.init_process_group(
        'gloo', rank=int(os.environ['RANK']), world_size=int(os.environ['WORLD_SIZE']))
    if 'strategy' in cfg:
        cfg.strategy.model_wrapper.device_id = torch.device('cpu')
    elif not cfg.get('model_wrapper_cfg'):
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
