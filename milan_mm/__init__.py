# SPDX-License-Identifier: Apache-2.0
"""MILAN for the OpenMMLab family: importing this registers the components, scope ``milan_mm``."""
__version__ = '0.1.0'

from .datasets import *  # noqa: E402, F401, F403
from .errors import MilanError  # noqa: E402
from .models import *  # noqa: E402, F401, F403

from .compat import plain_checkpoints  # noqa: E402, F401  isort: skip
from .engine import hooks  # noqa: E402, F401  isort: skip
from .evaluation import hook  # noqa: E402, F401  isort: skip
from .hub import get_model  # noqa: E402, F401  isort: skip
