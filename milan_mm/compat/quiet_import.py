# SPDX-License-Identifier: Apache-2.0
"""Importing mmpretrain warns of compiled ops that it does not use for classification.

onedl-mmpretrain 1.3.6 logs "Line NMS is not compiled" to stdout, onedl-mmcv 2.3.6 warns of
``MultiScaleDeformableAttention``. Pretraining needs neither; milan doctor tells which ops are
there. The onedl packages print "Could not import OneDL" where a commercial package is missing, and
mmseg's cross-entropy warns of its own default when it is built.
"""
import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator

from mmengine.logging import MMLogger

# What is exchanged below belongs to the whole process: of two threads, the one that comes second
# would put back what the first had put there, and nothing would ever be shown again.
_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Within it, mmengine's logger shows errors alone, and those lines are not shown."""
    with _ONE_AT_A_TIME:
        printed = io.StringIO()
        logger = MMLogger.get_current_instance()
        levels = [logger.level, *(handler.level for handler in logger.handlers)]
        try:
            for part in (logger, *logger.handlers):
                part.setLevel(logging.ERROR)
            with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
                warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformable')
                warnings.filterwarnings('ignore', message='Default ``avg_non_ignore``')
                yield
        finally:
            for line in printed.getvalue().splitlines():
                if not line.startswith('Could not import OneDL'):
                    print(line)
            for part, level in zip((logger, *logger.handlers), levels):
                part.setLevel(level)
