# SPDX-License-Identifier: Apache-2.0
"""How a classifier fares on images unlike those it was trained on."""
from .corruptions import CORRUPTIONS, corrupt

__all__ = ['CORRUPTIONS', 'corrupt']
