# SPDX-License-Identifier: Apache-2.0
"""Files of weights: read without running them, named in each library's way, handed over whole."""
from .io import read_checkpoint, state_of, write_atomically

__all__ = ['read_checkpoint', 'state_of', 'write_atomically']
