# SPDX-License-Identifier: Apache-2.0
"""Says what a pretraining will take on GPUs that are not here: ``milan plan``."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from milan_mm_cli import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main(['plan', *sys.argv[1:]]))
