# SPDX-License-Identifier: Apache-2.0
"""mmpretrain's own inferencers take our configs and checkpoints."""
import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_VIT
from mmengine.config import Config
from mmpretrain import FeatureExtractor, ImageClassificationInferencer
from PIL import Image

from milan_mm.datasets import LoadPILImage


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    """A config of finetuning, and a checkpoint of it with random weights."""
    from mmpretrain.registry import MODELS
    folder = tmp_path_factory.mktemp('classifier')
    cfg = Config.fromfile(ROOT / 'configs/quickstart/finetune.py')
    cfg.model.backbone.update(arch=TINY_VIT, init_cfg=None)
    cfg.model.head.update(num_classes=3, in_channels=48)
    cfg.data_preprocessor.num_classes = 3
    cfg.dump(folder / 'tiny.py')
    torch.manual_seed(0)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict()), folder / 'tiny.pth')
    blocks = np.random.default_rng(0).integers(0, 255, (6, 7, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((96, 80), 0).save(folder / 'image.png')
    return folder, model.eval()


def test_a_class_from_a_file_and_from_an_array(classifier):
    folder, model = classifier
    infer = ImageClassificationInferencer(
        Config.fromfile(folder / 'tiny.py'), pretrained=str(folder / 'tiny.pth'), device='cpu',
        classes=['a', 'b', 'c'])
    bgr = np.asarray(Image.open(folder / 'image.png'))[..., ::-1]
    by_file, by_array = (infer(given)[0] for given in (str(folder / 'image.png'), bgr))
    # What the model itself says of the pixels that our pipeline makes of the file.
    image = Image.open(folder / 'image.png').convert('RGB')
    left, size = (96 - 80) / 2, (64, 64)
    pixels = image.resize(size, Image.Resampling.BICUBIC, (left, 0, left + 80, 80))
    inputs = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float()
    scores = model.head.predict(model.extract_feat(
        (inputs - torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1))
        / torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)))[0].pred_score
    for found in (by_file, by_array):
        np.testing.assert_allclose(found['pred_scores'], scores.detach(), atol=2e-3)
        assert found['pred_class'] == 'abc'[int(scores.argmax())]
    np.testing.assert_array_equal(by_file['pred_scores'], by_array['pred_scores'])


def test_features_from_a_file(classifier):
    folder, _ = classifier
    extract = FeatureExtractor(Config.fromfile(folder / 'tiny.py'),
                               pretrained=str(folder / 'tiny.pth'), device='cpu')
    (feature, ), = extract(str(folder / 'image.png'))
    assert feature.shape == (48, ) and feature.isfinite().all()


def test_an_array_is_taken_as_bgr():
    image = LoadPILImage()(dict(img=np.array([[[255, 0, 0]]], dtype=np.uint8)))['img']
    assert image.getpixel((0, 0)) == (0, 0, 255)
