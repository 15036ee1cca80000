# SPDX-License-Identifier: Apache-2.0
"""A teacher that is not here, and cannot be had, is known before anything else."""
import os
import subprocess
import sys

import open_clip
import pytest
from conftest import ROOT

from milan_mm.errors import MilanError
from milan_mm.models import CLIPTargetGenerator
from milan_mm.reachable import REPOS, WEIGHTS, check_teacher_at_hand

SPEC = 'ViT-B-16-quickgelu:openai'


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    for name in ('HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE', 'HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE',
                 'HF_ENDPOINT'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HF_HOME', str(tmp_path / 'hf'))
    monkeypatch.setenv('https_proxy', 'http://127.0.0.1:9')  # nobody listens there
    return tmp_path / 'hf/hub'


def test_the_default_teachers_are_where_open_clip_looks():
    assert {spec: open_clip.get_pretrained_cfg(*spec.split(':'))['hf_hub'].rstrip('/')
            for spec in REPOS} == REPOS


def test_pretrain_says_so_at_once(empty_cache, tmp_path):
    """Before PyTorch is imported, which alone takes more than a second."""
    done = subprocess.run(
        [sys.executable, '-X', 'importtime', '-m', 'milan_mm', 'pretrain', str(tmp_path)],
        capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)}, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert ' torch\n' not in done.stderr and ' argparse\n' in done.stderr
    said = done.stderr[done.stderr.index('error: '):]
    for words in (f'{SPEC} is not on this machine', '127.0.0.1:9: [Errno 111]',
                  f'https://huggingface.co/{REPOS[SPEC]}/resolve/main/{WEIGHTS}',
                  f'--teacher ViT-B-16-quickgelu:/path/to/{WEIGHTS}', str(empty_cache),
                  'milan train-clip', 'mae/vitb_pretrain.py', 'milan quickstart'):
        assert words in said, words
    assert 'Traceback' not in said and os.listdir(tmp_path) == []


def test_offline_mode_is_a_reason(empty_cache, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises(MilanError, match='HF_HUB_OFFLINE=1 forbids it'):
        CLIPTargetGenerator('ViT-B-16', 'laion2b_s34b_b88k')


def test_what_is_here_or_another_matter_passes(empty_cache, tmp_path):
    check_teacher_at_hand('anything')
    check_teacher_at_hand('ViT-B-16-quickgelu:file.pt')
    kept = empty_cache / f'models--{REPOS[SPEC].replace("/", "--")}/snapshots/a'
    kept.mkdir(parents=True)
    with pytest.raises(MilanError, match='cannot be reached'):
        check_teacher_at_hand(SPEC)
    (kept / WEIGHTS).write_bytes(b'')
    check_teacher_at_hand(SPEC)
