# SPDX-License-Identifier: Apache-2.0
"""Pillow starts Ghostscript on a file that begins like PostScript, whatever its name.

mmcv and mmseg open label maps with every format Pillow has, so here that program is switched off
for the whole process, by the variable that Pillow keeps for it.
"""
from PIL import EpsImagePlugin


def forbid_ghostscript() -> None:
    """Takes the program from Pillow, in this process."""
    EpsImagePlugin.gs_binary = False
