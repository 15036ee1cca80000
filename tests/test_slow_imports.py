# SPDX-License-Identifier: Apache-2.0
"""A command starts without what it does not need, and has it where it does."""
import os
import subprocess
import sys

from conftest import ROOT

# In a process of its own, as these modules can be imported once.
PROGRAM = """
import sys
import milan_mm_cli
assert milan_mm_cli.main(['train', 'none.py', '--work-dir', 'run']) == 2
assert 'milan_mm.public' in sys.modules
for name in ('mmdet', 'transformers', 'matplotlib', 'scipy', 'tifffile'):
    assert name not in sys.modules, name

# What was left out is there for whoever asks.
import inspect
import mmcv.image.io
import mmpretrain.models
import numpy
import open_clip
import torch
from mmengine.registry import OPTIMIZERS
from mmpretrain.registry import DATASETS, MODELS, TOKENIZER
from torchvision.ops import roi_align

mmcv.image.io.tifffile.imwrite('one.tif', numpy.full((4, 5), 7, numpy.uint8))
assert mmcv.imread('one.tif', backend='tifffile', flag='unchanged').sum() == 140
torch.use_deterministic_algorithms(True)
assert roi_align(torch.ones(1, 1, 8, 8), [torch.tensor([[0., 0, 4, 4]])], 2).shape[-1] == 2
optimizer = OPTIMIZERS.build(dict(type='Adafactor', params=[torch.nn.Parameter(torch.ones(2))]))
assert type(optimizer).__module__.startswith('transformers')
try:
    MODELS.build(dict(type='BlipCaption', vision_encoder=3))
except TypeError as error:
    assert 'missing' in str(error), error
else:
    raise AssertionError('BlipCaption takes more arguments')
assert inspect.isclass(MODELS.get('BlipCaption')) and inspect.isclass(DATASETS.get('COCOCaption'))
assert TOKENIZER.get('BlipTokenizer') and mmpretrain.models.BlipCaption
try:
    open_clip.CoCa(no_such_part=1)
except TypeError as error:
    assert 'no_such_part' in str(error), error
print('all there')
"""


def test_a_command_imports_what_it_needs_and_the_rest_at_need(tmp_path):
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0 and 'all there' in done.stdout, done.stdout + done.stderr
