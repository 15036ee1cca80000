# SPDX-License-Identifier: Apache-2.0
"""Evaluates a checkpoint on the test set that a config describes."""
import sys

from milan_mm.engine.cli import run_tool
from milan_mm.engine.test import test, test_parser


def main() -> None:
    test(test_parser(__doc__).parse_args())  # its metrics are no exit code


if __name__ == '__main__':
    sys.exit(run_tool(main))
