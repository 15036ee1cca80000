# SPDX-License-Identifier: Apache-2.0
"""Speed of MILAN's training step here against mmpretrain's own MILAN, as a ratio.

Both models, the same sizes, images and randomly weighted CLIP teacher, take their steps in turns
in one process, so that whatever else the machine does meets both.
"""
import sys

from milan_mm.engine.cli import run_tool
from milan_mm.lab.benchmark.step import benchmark, benchmark_parser


def main() -> None:
    benchmark(benchmark_parser(__doc__).parse_args())


if __name__ == '__main__':
    sys.exit(run_tool(main))
