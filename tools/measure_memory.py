#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Memory of a detector's backbone: windowed, with checkpointing, and global attention."""
import sys

from milan_mm.engine.cli import run_tool
from milan_mm.lab.benchmark.memory import measure_all, measure_parser

if __name__ == '__main__':
    sys.exit(run_tool(lambda: measure_all(measure_parser(__doc__).parse_args())))
