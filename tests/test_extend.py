# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/extend.md: executed as printed, and they do what the text says."""
import importlib
import os
import re
import shlex
import shutil
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers_eval import run_tool_here
from PIL import Image

from milan_mm.checkpoints.vit import read_vit
from milan_mm.errors import MilanError
from milan_mm.models import MILAN
from milan_mm.registry import MODELS
from milan_mm.structures import MaskIds

BLOCKS = re.findall(r'```(\w+)\n(.*?)```\n', (ROOT / 'docs/extend.md').read_text(), re.DOTALL)
FILES = {match.group(1): text for kind, text in BLOCKS if kind == 'python'
         for match in [re.match(r'# (\w+\.py)\n', text)]}
COMMANDS = [text.strip() for kind, text in BLOCKS if kind == 'bash' and 'my_' in text]
EXAMPLES = dict(my_target='GradientTargetGenerator', my_masking='OneInFourMaskGenerator',
                my_decoder='AskingDecoder')


@pytest.fixture(scope='module')
def clone(teacher_folder, tmp_path_factory):
    """Like a clone after the quickstart's first stage, with the examples' files in it."""
    folder = tmp_path_factory.mktemp('clone')
    shutil.copytree(ROOT / 'configs', folder / 'configs')
    with open(folder / 'configs/_base_/quickstart.py', 'a') as file:  # saves 5 s a run
        file.write('train_dataloader.update(num_workers=0, persistent_workers=False)\n')
    data = folder / 'work_dirs/quickstart/data/train/things'
    data.mkdir(parents=True)
    (folder / 'demo').mkdir()
    (folder / 'demo/teacher').symlink_to(teacher_folder)
    rng = np.random.default_rng(0)
    for i in range(64):  # one batch
        blocks = rng.integers(0, 255, (6, 7, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((70, 64), 0).save(data / f'{i}.png')
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def parts(clone, monkeypatch):
    """The classes of the examples, each registered by importing its file."""
    monkeypatch.syspath_prepend(str(clone))
    for name in EXAMPLES:
        importlib.import_module(name)
    return {name: MODELS.get(f'milan_mm.{name}') for name in EXAMPLES.values()}


def test_every_block_is_tried():
    assert all(FILES) and sorted(FILES) == sorted(
        f'{name}{end}' for name in EXAMPLES for end in ('.py', '_config.py'))
    assert len(COMMANDS) == len(EXAMPLES)
    assert all(len(FILES[f'{name}.py'].splitlines()) <= 42 for name in EXAMPLES)


@pytest.mark.parametrize('command', COMMANDS, ids=list(EXAMPLES))
def test_one_training_step(command, clone, monkeypatch, capfd):
    """The command as printed; its epoch is one step. Python is this one, which is running."""
    path, python, tool, *arguments = shlex.split(command)
    assert (path, python, tool) == ('PYTHONPATH=.', 'python', 'tools/train.py')
    name = arguments[0].removesuffix('_config.py')
    monkeypatch.chdir(clone)
    monkeypatch.syspath_prepend('.')
    built = []
    loss = MILAN.loss
    monkeypatch.setattr(MILAN, 'loss', lambda self, *a, **k: built.append(self) or loss(
        self, *a, **k))
    with mock.patch.dict(os.environ):  # a run leaves variables behind
        ran = run_tool_here(capfd, 'train', *arguments)
    assert not ran.returncode, ran.stdout + ran.stderr
    assert len(built) == 1  # steps
    used = [type(part).__name__ for part in (built[0].target_generator, built[0].mask_generator,
                                             built[0].neck)]
    assert EXAMPLES[name] in used and sys.modules[name]
    student = read_vit(clone / f'work_dirs/{name}_config/epoch_1.pth')
    assert student.spec.arch['embed_dims'] == 128 and (student.decoder == {}) == (
        name == 'my_decoder')


def test_the_target_sees_orientations(parts):
    """Stripes of 4 px, upright in the left half, lying in the right one; a blank strip above."""
    image = torch.zeros(1, 3, 32, 32)
    x = torch.arange(32)
    image[..., :16] = ((x[:16] // 4) % 2).float()
    image[..., 16:] = ((x // 4) % 2).float()[:, None]
    image[..., :8, :] = 0
    target = parts['GradientTargetGenerator'](patch_size=8, bins=4)(image)
    features, importance = (t.view(4, 4, -1) for t in target)
    assert target.features.shape == (1, 16, 4) and target.importance.shape == (1, 16)
    assert features[2, 0].argmax() == 0 and features[2, 2].argmax() == 2  # along x, along y
    assert torch.allclose(features[2:].norm(dim=-1), torch.ones(2, 4), atol=1e-5)
    assert importance[0].max() < importance[2].min()


def test_the_masking_shows_one_of_four(parts):
    masking = parts['OneInFourMaskGenerator']()
    masking.match_student((4, 6))
    importance = torch.full((4000, 24), 1.)
    importance[:, 0] = 5.
    masks = masking(importance, torch.arange(4000))
    assert torch.equal(masks.order().sort(dim=1).values, torch.arange(24).expand(4000, -1))
    window = masks.visible // 6 // 2 * 3 + masks.visible % 6 // 2
    assert torch.equal(window.sort(dim=1).values, torch.arange(6).expand(4000, -1))
    share = (masks.visible == 0).any(dim=1).float().mean()
    assert abs(share - 5 / 8) < 4 * (5 / 8 * 3 / 8 / 4000)**.5  # 5 of 5 + 1 + 1 + 1
    assert masking.state_dict() == {} and masking.needs_importance
    with pytest.raises(MilanError, match='even grid, got 3 x 4'):
        masking.match_student((3, 4))


def test_the_decoder_keeps_mask_tokens_apart(parts):
    """A mask token's prediction follows from what was seen and its own place, so permuting the
    masked patches permutes the predictions, and dropping others changes none."""
    torch.manual_seed(0)
    decoder = parts['AskingDecoder'](16, (2, 4), 10, width=32)
    latent = torch.randn(1, 1 + 2, 16)
    visible, masked = torch.tensor([[5, 2]]), torch.tensor([[0, 1, 3, 4, 6, 7]])
    every = decoder(latent, MaskIds(visible, masked))
    assert every.shape == (1, 1 + 8, 10)
    turned = decoder(latent, MaskIds(visible, masked.flip(1)))
    assert torch.allclose(every[:, 3:].flip(1), turned[:, 3:], atol=1e-6)
    assert not torch.allclose(every[:, 3:], turned[:, 3:], atol=1e-3)
    alone = decoder.predict(decoder.embed(latent) + decoder.positions[:, [0, 6, 3]])
    assert torch.allclose(every[:, :3], alone, atol=1e-6)
