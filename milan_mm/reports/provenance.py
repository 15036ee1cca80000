# SPDX-License-Identifier: Apache-2.0
"""Where figures come from: versions, machine, commit."""
import os
import platform
import subprocess
from pathlib import Path

import torch

from ..packages import FORKS, NEEDED, UPSTREAM, __version__, installed


def versions() -> dict[str, str]:
    """What the figures were made with."""
    found = {name: installed(name) for name in (*NEEDED.values(), *FORKS, *UPSTREAM)}
    return dict(milan_mm=__version__, python=platform.python_version(),
                **{name: version for name, version in found.items() if version})


def machine() -> dict[str, str]:
    """System, cores and GPUs."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return dict(system=f'{platform.system()} {platform.machine()}', cores=str(os.cpu_count()),
                gpus=', '.join(gpus) or 'none')


def commit() -> str:
    """Of the project's clone, '+' where files differ from it; '' of an installed package."""
    def git(*arguments: str) -> str:
        done = subprocess.run(['git', *arguments], cwd=Path(__file__).parent, text=True,
                              capture_output=True, timeout=20)
        return done.stdout.strip() if done.returncode == 0 else ''
    try:
        found = git('rev-parse', '--short', 'HEAD')
        return found + ('+' if found and git('status', '--porcelain', '-uno') else '')
    except (OSError, subprocess.TimeoutExpired):
        return ''
