# SPDX-License-Identifier: Apache-2.0
"""Where figures come from: versions, machine, commit."""
import contextlib
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

import torch

from .. import __version__


def versions() -> dict[str, str]:
    """What the figures were made with: the requirements of this package, as far as installed."""
    found = dict(milan_mm=__version__, python=platform.python_version(), torch=torch.__version__)
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # of a bare clone
        for line in importlib.metadata.requires('milan_mm') or []:
            name = re.match(r'[\w.-]+', line)[0]
            if 'extra == "tests"' not in line.replace("'", '"'):
                with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                    found.setdefault(name, importlib.metadata.version(name))
    return found


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
