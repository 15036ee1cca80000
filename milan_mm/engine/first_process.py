# SPDX-License-Identifier: Apache-2.0
"""The data of a run is looked through once, not by each of its processes."""
import datetime
from typing import Any

from mmengine.config import Config
from mmengine.dist import init_dist, is_distributed, is_main_process
from mmengine.utils.dl_utils import set_multi_processing
from torch import distributed

from ..config.own_data import fill_num_classes, open_places
from ..errors import MilanError


def with_classes(cfg: Config) -> Config:
    """What :func:`fill_num_classes` makes of a config, by the first process for all.

    Raises:
        MilanError: in each process, if the data is nothing to train with.
    """
    if cfg.get('launcher', 'none') == 'none' or not any(
            open_places((cfg.get('model'), cfg.get('data_preprocessor')))):
        fill_num_classes(cfg)
        return cfg
    if not is_distributed():  # as mmengine would a little later
        set_multi_processing(**cfg.env_cfg.get('mp_cfg', {}), distributed=True)
        init_dist(cfg.launcher, **cfg.env_cfg.get('dist_cfg', {}))
    verdict: list[Config | MilanError] = [cfg]
    if is_main_process():
        try:
            fill_num_classes(cfg)
        except MilanError as error:
            verdict = [error]
    # Many images take a while: longer than others wait for each other in a step. The group stays
    # to the end: torch 2.5 often hangs when it takes one down.
    group: Any = distributed.new_group(backend='gloo', timeout=datetime.timedelta(days=1))
    distributed.broadcast_object_list(verdict, 0, group)
    if isinstance(verdict[0], MilanError):
        raise verdict[0]
    return verdict[0]
