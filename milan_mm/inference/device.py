# SPDX-License-Identifier: Apache-2.0
"""Where a model computes."""
import torch

from ..errors import MilanError


def check_device(name: str | None = None) -> torch.device:
    """The device of that name; None for the GPU if there is one, else the CPU.

    Raises:
        MilanError: if it does not exist here.
    """
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise MilanError(f'--device {name} cannot be used here '
                         f'({str(error).splitlines()[0]}); use --device cpu') from error
