# SPDX-License-Identifier: Apache-2.0
"""Trains what a config describes."""
import sys

from milan_mm.engine.cli import run_tool
from milan_mm.engine.train import train, train_parser

if __name__ == '__main__':
    sys.exit(run_tool(lambda: train(train_parser(__doc__).parse_args())))
