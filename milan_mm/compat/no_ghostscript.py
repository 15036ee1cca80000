# SPDX-License-Identifier: Apache-2.0
"""Pillow starts Ghostscript on a file that begins like PostScript, whatever its name.

mmcv and mmseg open label maps with every format Pillow has, so here that way is closed for the
whole process. (Pillow's own switch, ``gs_binary``, came with 10.1.)
"""
from typing import Any, NoReturn

from PIL import EpsImagePlugin


def forbid_ghostscript() -> None:
    """Takes the program from Pillow, in this process."""
    EpsImagePlugin.Ghostscript = _refuse


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
    raise OSError('the image is PostScript, which Ghostscript would have to run')
