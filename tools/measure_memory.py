# SPDX-License-Identifier: Apache-2.0
"""Measures the memory of a detector's backbone: ``milan benchmark downstream``."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from milan_mm_cli import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main(['benchmark', 'downstream', *sys.argv[1:]]))
