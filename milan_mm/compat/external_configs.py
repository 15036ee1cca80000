# SPDX-License-Identifier: Apache-2.0
"""``_base_ = 'milan_mm::milan/vitb_pretrain.py'`` in a config of one's own.

mmengine knows the packages of OpenMMLab by a table, and 0.10.7 looks for an editable install in
site-packages. Configs found here get no scope of their own: they read as they do by their path.
"""
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from ..resources import locate
from .old_names import renew_path


def install() -> None:
    """Lets mmengine find the configs that come with milan_mm; needed once a process."""
    if 'milan_mm' in MODULE2PACKAGE:
        return
    MODULE2PACKAGE['milan_mm'] = 'milan_mm'  # for mmengine.hub and mim
    find = Config._get_cfg_path

    def find_ours_too(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if cfg_path.startswith('milan_mm::'):
            return str(locate(cfg_path)), None
        found, scope = find(cfg_path, filename)
        return renew_path(found), scope

    Config._get_cfg_path = staticmethod(find_ours_too)
