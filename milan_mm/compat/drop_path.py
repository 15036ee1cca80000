# SPDX-License-Identifier: Apache-2.0
"""mmpretrain's ViT gives its DropPath rates as numpy scalars, which torch.compile cannot branch on.

(mmpretrain 1.2.0 to 1.3.6, from ``np.linspace``.)
"""
from torch import nn


def make_drop_path_traceable(module: nn.Module) -> None:
    """Turns every ``drop_prob`` below a module into a Python float."""
    for part in module.modules():
        if hasattr(part, 'drop_prob'):
            part.drop_prob = float(part.drop_prob)
