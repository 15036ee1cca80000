# SPDX-License-Identifier: Apache-2.0
"""No room imports from above it: the floors are in pyproject.toml, [tool.importlinter]."""
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

CHECK = """
import sys
from importlinter.cli import lint_imports
sys.exit(lint_imports(no_cache=True))
"""


def check(house):
    """import-linter on a copy of the project, in a process of its own: it reads, runs nothing."""
    done = subprocess.run([sys.executable, '-c', CHECK], cwd=house, capture_output=True, text=True,
                          timeout=60, env={'PYTHONPATH': str(house), 'COLUMNS': '200'})
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def house(tmp_path):
    shutil.copytree(ROOT / 'milan_mm', tmp_path / 'milan_mm',
                    ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copy(ROOT / 'pyproject.toml', tmp_path)
    return tmp_path


def test_floors(house):
    code, said = check(house)
    assert code == 0, said


@pytest.mark.parametrize('file, line, found', [
    ('datasets/sampler.py', 'from ..models import milan', 'sampler -> milan_mm.models.milan'),
    ('lab/quickstart/data_folder.py', 'from . import own_folder', 'No cycles are allowed in'),
    ('lab/captions.py', 'from .. import __version__', 'milan_mm.lab.captions -> milan_mm'),
    ('new_room.py', 'pass', 'milan_mm.new_room'),
])
def test_a_step_upwards_is_found(house, file, line, found):
    """One within a function too, where a circle would show only when it is called."""
    with open(house / 'milan_mm' / file, 'a') as source:
        source.write(f'\n\ndef later():\n    {line}\n')
    code, said = check(house)
    assert code == 1 and found in said, said
