# SPDX-License-Identifier: Apache-2.0
"""Predicts classes, boxes and masks, or label maps for images, and draws them."""
import sys

from milan_mm.engine.cli import run_tool
from milan_mm.inference.predict import predict, predict_parser

if __name__ == '__main__':
    sys.exit(run_tool(lambda: predict(predict_parser(__doc__).parse_args())))
