# SPDX-License-Identifier: Apache-2.0
"""torch's SyncBatchNorm trains on CUDA only, if there is a process group (2.5 to 2.14).

mmseg's heads and necks are configured with it by custom, and mmengine 0.10.x builds them as they
are wherever it trains. In one process it is BatchNorm anyway.
"""
import os
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log

_SHARED = ('SyncBN', 'MMSyncBN')  # torch's, and that of mmcv's compiled ops


def replace_sync_bn(cfg: Config, cuda: bool | None = None) -> int:
    """Makes every ``type='SyncBN'`` a ``'BN'`` where there is one process or no CUDA device.

    Its other options stay, and so do the names in checkpoints. A default inside a package is not
    seen: configs name their ``norm_cfg``.

    Args:
        cfg: of a run, with its ``launcher``; changed in place.
        cuda: whether the run has CUDA devices; None finds out.

    Returns:
        How many were replaced.
    """
    alone = cfg.get('launcher', 'none') == 'none' or os.environ.get('WORLD_SIZE') == '1'
    if not alone and (torch.cuda.is_available() if cuda is None else cuda):
        return 0
    replaced = sum(_replace(cfg[key]) for key in cfg)
    if replaced:
        print_log(f'SyncBN is BN here ({replaced} settings): this run '
                  + ('is one process' if alone else 'is on the CPU'), logger='current')
    return replaced


def _replace(value: Any) -> int:
    found = 0
    if isinstance(value, dict):
        if str(value.get('type')).rpartition('.')[2] in _SHARED:
            value['type'], found = 'BN', 1
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return 0
    return found + sum(_replace(item) for item in value)
