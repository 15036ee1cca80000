# SPDX-License-Identifier: Apache-2.0
"""Small real things that several tests share."""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from helpers_browser import browser, look_at  # noqa: F401  fixtures
from helpers_eval import run_tool_here
from mmengine.registry import DefaultScope
from PIL import Image
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / 'tests/data/reference_tiny.safetensors'

os.environ.setdefault('HF_HUB_OFFLINE', '1')
torch.set_num_threads(1)  # tiny tensors: threads only wait for each other

TINY_CLIP = dict(
    embed_dim=48,
    quick_gelu=True,
    vision_cfg=dict(image_size=32, layers=3, width=64, head_width=32, patch_size=8),
    text_cfg=dict(context_length=16, vocab_size=64, width=32, heads=2, layers=1))
TINY_VIT = dict(embed_dims=48, num_layers=2, num_heads=4, feedforward_channels=96)


@pytest.fixture(autouse=True)
def default_scope():
    """A test that looked names up in mmdet or mmseg leaves that to no other test."""
    current = DefaultScope.get_current_instance()
    if current is not None and current.scope_name != 'mmpretrain':
        DefaultScope.get_instance(f'tests {time.time_ns()}', scope_name='mmpretrain')


@pytest.fixture
def golden():
    return GOLDEN


@pytest.fixture(scope='session')
def tiny_clip():
    """A CLIP of open_clip with random weights."""
    torch.manual_seed(0)
    return open_clip.CLIP(**TINY_CLIP).eval()


@pytest.fixture(scope='session')
def teacher_folder(tiny_clip, tmp_path_factory):
    """The same in open_clip's folder format."""
    folder = tmp_path_factory.mktemp('teacher')
    save_file(tiny_clip.state_dict(), folder / 'open_clip_model.safetensors')
    config = dict(model_cfg=TINY_CLIP, preprocess_cfg=dict(mean=[.5, .4, .3], std=[.2, .3, .4]))
    (folder / 'open_clip_config.json').write_text(json.dumps(config))
    return folder


@pytest.fixture(scope='session')
def image_folder(tmp_path_factory):
    """48 images of random blocks in nested folders, no labels."""
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for i in range(48):
        blocks = rng.integers(0, 255, (6, 7, 3), dtype=np.uint8)
        path = folder / f'group {i % 3}' / ('deep' if i % 2 else '') / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(blocks).resize((70, 60), 0).save(path)
    return folder


def milan_config(teacher, mask_ratio=0.75, img_size=32, **changes):
    """A small MILAN as a config."""
    return dict(
        dict(
            type='milan_mm.MILAN',
            backbone=dict(type='milan_mm.MaskedVisionTransformer', arch=dict(TINY_VIT),
                          img_size=img_size, patch_size=8),
            target_generator=dict(type='milan_mm.CLIPTargetGenerator', pretrained=str(teacher)),
            mask_generator=dict(type='milan_mm.SemanticMaskGenerator', mask_ratio=mask_ratio),
            neck=dict(type='milan_mm.PromptingDecoder', decoder_embed_dim=32, decoder_depth=2,
                      decoder_num_heads=4),
            head=dict(type='milan_mm.ReconstructionHead',
                      loss=dict(type='milan_mm.CosineReconstructionLoss'))), **changes)


def run_tool(tool, *arguments, code=0, timeout=300, env=None):
    """Runs ``tools/TOOL`` as a user would; gives its output, checks its exit code."""
    command = ['bash' if tool.endswith('.sh') else sys.executable, str(ROOT / 'tools' / tool)]
    done = subprocess.run(
        [*command, *map(str, arguments)], cwd=ROOT, timeout=timeout, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHON': sys.executable,
             'OMP_NUM_THREADS': '1', **(env or {})})
    assert done.returncode == code, f'{tool} exited with {done.returncode}:\n{done.stdout[-3000:]}'
    return done.stdout


@pytest.fixture
def run_here(capfd):
    """``run_tool`` within this process, which has imported everything already.

    For what a command says and writes; that each tool starts by itself, other tests show.
    """
    def run(tool, *arguments, code=0):
        done = run_tool_here(capfd, tool.removesuffix('.py'), *arguments)
        assert done.returncode == code, f'{tool} exited with {done}'
        return done.stdout + done.stderr
    return run


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker is left alone with one at the end."""
    slow = ('test_quickstart.py', 'test_train.py', 'test_annotations.py', 'test_ablation.py',
            'test_wheel.py', 'test_vit_det.py', 'test_visualize.py')
    items.sort(key=lambda item: slow.index(item.path.name) if item.path.name in slow else len(slow))
