# SPDX-License-Identifier: Apache-2.0
"""Predicts for images and draws it: ``milan predict``."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from milan_mm_cli import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main(['predict', *sys.argv[1:]]))
