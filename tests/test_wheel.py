# SPDX-License-Identifier: Apache-2.0
"""The wheel by itself: outside any clone, in an environment that holds nothing else of it."""
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from sysconfig import get_path

import pytest
from conftest import ROOT

BUILD = '''
import sys
from setuptools import build_meta
folder, *kinds = sys.argv[1:]
for kind in kinds:
    getattr(build_meta, f'build_{kind}')(folder)
'''
NAMES = '''
from importlib.metadata import version
from mmengine.hub import get_config
import milan_mm
from milan_mm.config.read import read_config
from milan_mm.errors import MilanError
from milan_mm.resources import RESOURCES
assert milan_mm.__version__ == version('milan_mm')
for name in ('milan_mm::milan/vitl_pretrain.py', 'milan/vitl_pretrain.py'):
    assert read_config(name).model.backbone.arch == 'vit-l'
assert get_config('milan_mm::milan/vitl_pretrain.py').model.backbone.arch == 'vit-l'
assert read_config('milan_mm::paper.py', 'studies').base == 'milan'
try:
    read_config('milan_mm::milan/none.py')
except MilanError as error:
    assert str(error).startswith('no such config: milan_mm::milan/none.py')
    print(RESOURCES)
'''
CONFIG = '''
_base_ = 'milan_mm::quickstart/milan.py'
model = dict(target_generator=dict(pretrained={teacher!r}))
train_dataloader = dict(batch_size=3, num_workers=0, persistent_workers=False)
'''


def run(*command, cwd, code=0):
    """A process without the variables that let the clone be found."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith('PYTHON')}
    done = subprocess.run([*map(str, command)], cwd=cwd, text=True, timeout=300,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=dict(clean, OMP_NUM_THREADS='1'))
    assert done.returncode == code, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """What a fresh clone makes: the sdist, and the wheels of the clone and of the sdist."""
    folder = tmp_path_factory.mktemp('built')
    clone = folder / 'clone'
    files = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard'], cwd=ROOT, text=True,
                           check=True, stdout=subprocess.PIPE).stdout.splitlines()
    for name in files:
        if (ROOT / name).is_file() and not name.startswith(('tests/', 'docs/')):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    # The editable install first: the links it makes must not get into what is built after it.
    run(sys.executable, '-c', BUILD, folder, 'editable', 'sdist', cwd=clone)
    assert (clone / 'milan_mm/.mim/configs').resolve() == clone / 'configs'
    [sdist] = folder.glob('*.tar.gz')
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter='data')
    wheels = []
    for source in (clone, folder / sdist.name.removesuffix('.tar.gz')):
        run(sys.executable, '-c', BUILD, source / 'dist', 'wheel', cwd=source)
        wheels += (source / 'dist').glob('*.whl')
    return sdist, *wheels


@pytest.fixture(scope='module')
def environment(built, tmp_path_factory):
    """A new environment with the wheel; what the wheel asks for comes from this one, after it."""
    folder = tmp_path_factory.mktemp('environment')
    run(sys.executable, '-m', 'venv', folder, cwd=folder)
    python = folder / 'bin/python'
    run(python, '-m', 'pip', 'install', '--no-index', '--no-deps', built[1], cwd=folder)
    [site] = folder.glob('lib/python*/site-packages')
    (site / 'what_it_needs.pth').write_text(get_path('purelib') + '\n')
    return python


CLONE_ONLY = re.compile(r'styles\.(zip|md)|make_\w+_archive\.py|train_teacher\.py')


def test_sdist_and_clone_make_the_same_wheel(built):
    sdist, *wheels = built
    contents = [{info.filename: info.CRC for info in zipfile.ZipFile(wheel).infolist()}
                for wheel in wheels]
    assert contents[0] == contents[1]
    names = {name.removeprefix('milan_mm/.mim/') for name in contents[0]}
    for folder in ('configs', 'studies', 'demo'):
        assert {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob('*')
                if p.is_file() and '__pycache__' not in p.parts
                and not CLONE_ONLY.search(p.name)} <= names
    assert not [name for name in names if CLONE_ONLY.search(name)]
    assert {'model-index.yml', 'tools/train.py', 'tools/test.py', 'tools/dist_train.sh'} <= names
    # By which mim finds it: no other file of the package has this name.
    assert [name for name in names if name.endswith('own_images.py')] == [
        'configs/milan/own_images.py']
    code = [p for p in (ROOT / 'milan_mm').rglob('*.*') if '.mim' not in p.parts]
    assert {p.relative_to(ROOT).as_posix() for p in code if p.suffix != '.pyc'} <= names
    assert not [name for name in names if name.startswith('tests/') or '__pycache__' in name]
    demo = sum(path.stat().st_size for path in (ROOT / 'demo').rglob('*') if path.is_file()
               and not CLONE_ONLY.search(path.name))
    assert max(path.stat().st_size for path in built) < demo + 2**20  # once, and little else


def test_five_steps_from_the_wheel(environment, teacher_folder, image_folder, tmp_path):
    said = run(environment, '-c', NAMES, cwd=tmp_path)
    resources = Path(said.splitlines()[-1])
    assert resources.is_relative_to(environment.parents[1]) and resources.name == '.mim'
    (tmp_path / 'images').mkdir()
    for path in sorted(image_folder.rglob('*.png'))[:15]:  # five steps an epoch
        shutil.copy(path, tmp_path / 'images')
    (tmp_path / 'tiny.py').write_text(CONFIG.format(teacher=str(teacher_folder)))
    said = run(environment.parent / 'milan', 'train', 'tiny.py', '--data-root', 'images',
               '--epochs', '1', '--cfg-options', 'default_hooks.logger.interval=1', cwd=tmp_path)
    assert '[5/5]' in said and (tmp_path / 'work_dirs/tiny/epoch_1.pth').is_file()
    # What mim starts, and torchrun.
    assert '--data-root' in run(environment, resources / 'tools/train.py', '--help', cwd=tmp_path)
