# SPDX-License-Identifier: Apache-2.0
"""The doctor: it speaks where everything else is broken, and looks at a teacher and at images."""
import json
import subprocess
import sys

from conftest import ROOT
from helpers_eval import run_tool_here
from PIL import Image


def ask(*arguments, flags=()):
    done = subprocess.run(
        [sys.executable, *flags, ROOT / 'tools/doctor.py', '--json', *arguments],
        capture_output=True, text=True, timeout=300)
    return done.returncode, {c['name']: c for c in json.loads(done.stdout)['checks']}


def test_without_any_package(tmp_path):
    """-S: no site-packages at all, so milan_mm does not import either."""
    code, checks = ask('--data', tmp_path, '--work-dir', tmp_path, flags=['-S'])
    assert code == 1 and checks['python']['status'] == 'ok'
    assert 'torch' in checks['packages']['detail'] and checks['lineage']['status'] == 'FAIL'
    assert checks['milan_mm']['status'] == 'FAIL' and checks['work folder']['status'] != 'FAIL'
    assert 'milan_mm does not import' in checks['data']['detail']


def test_teacher_and_images(tmp_path, teacher_folder, capfd):
    for i in range(3):
        Image.new('RGB', (40, 30)).save(tmp_path / f'{i}.png')
    code, checks = ask('--teacher', teacher_folder, '--data', tmp_path, '--work-dir', tmp_path)
    assert code == 0, checks
    assert 'targets of width 48, 4x4 patches' in checks['teacher']['detail']
    assert checks['data']['status'] == 'ok' and 'median 40x30 px' in checks['data']['detail']
    (tmp_path / '1.png').write_bytes(b'\x89PNG')
    done = run_tool_here(capfd, 'doctor', '--json', '--teacher', 'nothing', '--data', tmp_path,
                         '--work-dir', tmp_path)
    code, checks = done.returncode, {c['name']: c for c in json.loads(done.stdout)['checks']}
    assert code == 1 and 'nor MODEL:TAG' in checks['teacher']['detail']
    assert checks['data']['status'] == 'warn' and '1 of 3 tried' in checks['data']['detail']
