# SPDX-License-Identifier: Apache-2.0
"""Where a model computes."""
import torch

from ..errors import MilanError


def check_device(name: str) -> torch.device:
    """Raises MilanError for a device that does not exist here."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise MilanError(f'--device {name} cannot be used here '
                         f'({str(error).splitlines()[0]}); use --device cpu') from error
