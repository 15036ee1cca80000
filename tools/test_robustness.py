# SPDX-License-Identifier: Apache-2.0
"""Measures classifiers on images unlike their training's: ImageNet-A, -R, -Sketch, -C, or the 15
corruptions of ImageNet-C made on the fly of images of your own. See docs/robustness.md.

  CONFIG milan=a/epoch_100.pth mae=b/epoch_100.pth --suite corruptions --data DIR/val --out OUT
"""
import sys

from milan_mm.analysis.robustness.cli import robustness_parser, test_robustness
from milan_mm.engine.cli import run_tool


def main() -> None:
    test_robustness(robustness_parser(__doc__).parse_args())


if __name__ == '__main__':
    sys.exit(run_tool(main))
