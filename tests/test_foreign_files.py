# SPDX-License-Identifier: Apache-2.0
"""Nothing in a foreign checkpoint is run, on any way in.

All the pairs: ``python tests/faults/foreign_files.py``.
"""
import ast
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from faults.foreign_files import FOLDERS, PICKLES, ROUTES, TEXTS, Ground, attempt, served

# Each route with one poisoned file and, where it reads more than weights, with poisoned text; the
# poisons take turns. Each that takes folders, with one of these too.
_POISONS, _FOLDERS = list(PICKLES), list(FOLDERS)
_CONTINUE = ('resume', 'load_from', 'visualize', 'diagnose')
PAIRS = [(route, _POISONS[i % len(_POISONS)]) for i, route in enumerate(ROUTES)
         if 'trusted' not in route]
PAIRS += [(route, text) for route in ROUTES for text in TEXTS
          if 'resume' in route or route in ('visualize', 'load_from')]
PAIRS += [(route, _FOLDERS[i % len(_FOLDERS)])
          for i, route in enumerate(r for r in ROUTES if ROUTES[r].folder)]


@pytest.fixture(scope='module')
def ground(tmp_path_factory):
    ground = Ground(tmp_path_factory.mktemp('ground'))
    with served(ground):
        yield ground


@pytest.mark.parametrize('route, poison', PAIRS)
def test_no_file_is_made_and_the_answer_is_one_line(route, poison, ground):
    outcome = attempt(ground, route, poison)
    assert outcome.fault is None, (outcome.fault, outcome.words)
    if poison in PICKLES and not route.startswith('doctor'):
        assert outcome.code == 2


def test_a_poison_does_run_where_it_was_opted_in_to(ground):
    """So the mark is a mark; the text of a config is not run even then."""
    from milan_mm.checkpoints.io import read_checkpoint
    path = ground.folder / 'opted_in.pth'
    for poison in PICKLES.keys() - {'TorchScript', 'TorchScript constants', 'plain pickle'}:
        PICKLES[poison](ground, ground.run, path)
        ground.mark.unlink(missing_ok=True)
        read_checkpoint(path, trust=True)
        assert ground.mark.exists(), poison


def test_no_other_place_unpickles_or_evaluates():
    """A reader beside the one there is would be a way in that the walk above does not know."""
    readers = {'eval', 'exec', 'compile', '__import__', 'torch.load', 'torch.jit.load',
               'pickle.load', 'pickle.loads', 'np.load', 'joblib.load', 'yaml.load',
               'Config.fromstring'}
    found = set()
    for path in (*ROOT.glob('milan_mm/**/*.py'), *ROOT.glob('tools/*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if (isinstance(node, ast.Call) and ast.unparse(node.func) in readers
                    and not any(ast.unparse(k) == 'allow_pickle=False' for k in node.keywords)):
                found.add((path.name, ast.unparse(node.func)))
    assert found == {('io.py', 'torch.load')}


@pytest.mark.slow
def test_importing_everything_opens_no_connection():
    code = ('import socket, pkgutil, importlib\n'
            'def refuse(*a, **k): raise SystemExit("a connection was opened")\n'
            'socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n'
            'import milan_mm\n'
            'for part in pkgutil.walk_packages(milan_mm.__path__, "milan_mm."):\n'
            '    if not part.name.endswith("__main__"):\n'
            '        importlib.import_module(part.name)\n')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=200,
                          env={**os.environ, 'PYTHONPATH': str(ROOT), 'HF_HUB_OFFLINE': '0',
                               'TRANSFORMERS_OFFLINE': '0'})
    assert done.returncode == 0, done.stderr[-2000:]
