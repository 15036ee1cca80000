# SPDX-License-Identifier: Apache-2.0
"""Features of images of which the encoder is shown some patches only."""
import json

import pytest
import torch
from helpers_eval import run_tool_here, write_checkpoint, write_images

import milan_mm
from milan_mm.errors import MilanError
from milan_mm.inference.masked import masked_extractor


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp('masked') / 'epoch_1.pth')


def extractor(checkpoint, kind, teacher_folder, **more):
    return masked_extractor(milan_mm.get_model(checkpoint, img_size=32), kind, .75, checkpoint,
                            str(teacher_folder) if kind == 'semantic' else None, **more)


@pytest.mark.parametrize('kind', ['semantic', 'random'])
def test_masks_are_the_images_own(checkpoint, teacher_folder, kind):
    """Not of the batch or the order; another seed draws others; a quarter of 16 is seen."""
    model = extractor(checkpoint, kind, teacher_folder)
    images = torch.randn(6, 3, 32, 32)
    found = model(images)
    assert found.patches.shape == (6, 4, model.dim) and found.cls.shape == (6, model.dim)
    torch.testing.assert_close(model(images.flip(0)).cls.flip(0), found.cls)
    torch.testing.assert_close(model(images[2:3]).cls, found.cls[2:3])
    torch.testing.assert_close(found.pooled, found.patches.mean(dim=1))
    other = extractor(checkpoint, kind, teacher_folder, seed=1)(images)
    assert not torch.allclose(other.cls, found.cls)
    whole = model.encoder(images)
    assert not torch.allclose(whole.cls, found.cls)


def test_semantic_masks_show_what_is_important(checkpoint, teacher_folder, monkeypatch):
    """With all importance on four patches, those are what the encoder gets."""
    model = extractor(checkpoint, 'semantic', teacher_folder)
    images = torch.randn(5, 3, 32, 32)
    chosen = torch.tensor([1, 6, 11, 12])
    importance = torch.zeros(5, 16).index_fill(1, chosen, 1.)
    given = model.teacher(images)._replace(importance=importance)
    monkeypatch.setattr(model.teacher, 'generate', lambda _: given)
    alone = model.encoder.backbone(images, chosen.expand(5, 4))
    torch.testing.assert_close(model(images).cls, alone[:, 0])


def test_eval_says_how_it_masked(checkpoint, teacher_folder, tmp_path, capfd):
    for split, seed in (('train', 1), ('test', 2)):
        write_images(tmp_path / 'data' / split, seed=seed)
    out = tmp_path / 'out.json'
    done = run_tool_here(
        capfd, 'eval_features', checkpoint, '--data', tmp_path / 'data', '--masking', 'semantic',
        '--mask-ratio', .5, '--masking-teacher', teacher_folder, '--img-size', 32, '--knn',
        '--workers', 0, '--out', out)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result['masking'] == 'semantic' and result['mask_ratio'] == .5
    assert result['knn']['top1'] > 50  # of three colours, which half of an image tells too


def test_what_cannot_be(checkpoint, teacher_folder):
    encoder = milan_mm.get_model(checkpoint, img_size=32)
    with pytest.raises(MilanError, match='random masks need none'):
        masked_extractor(encoder, 'random', .75, checkpoint, str(teacher_folder))
    with pytest.raises(MilanError, match='name a CLIP with --masking-teacher'):
        masked_extractor(encoder, 'semantic', .75, checkpoint)
    with pytest.raises(MilanError, match='at least one must be visible'):
        masked_extractor(encoder, 'random', .99, checkpoint)
