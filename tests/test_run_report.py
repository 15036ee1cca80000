# SPDX-License-Identifier: Apache-2.0
"""The page of a run of each task."""
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import milan_config
from helpers_pages import check_page
from mmengine.config import Config
from PIL import Image
from test_predict import CONFIGS
from test_visualize import write_run

from milan_mm.cli.main import main
from milan_mm.inference.tasks import build_model

EVIL = '<i>run'
LOGGED = dict(
    classification=({}, {'accuracy/top1': 40.0}), detection=({}, {'coco/bbox_mAP': 0.4}),
    segmentation=({}, dict(mIoU=40.0, aAcc=70.0)),
    pretraining=(dict(cos_visible=0.8, cos_masked=0.4, importance_seen=0.5), {}))
HEADLINES = dict(
    classification='40.0 % top-1 accuracy after 2 of 3 epochs',
    detection='40.0 % box mAP after 2 of 3 epochs', segmentation='40.0 % mIoU after 2 of 3 epochs',
    pretraining='Cosine 0.40 to the teacher on masked patches after 2 of 3 epochs')


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for name in ('a.png', '<b>&.png'):
        blocks = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((50, 40), 0).save(folder / name)
    return folder


@pytest.fixture
def milan(capfd):
    """What a command prints."""
    def run(*arguments, code=0):
        capfd.readouterr()
        assert main([*map(str, arguments), '--device', 'cpu']) == code
        told = capfd.readouterr()
        return told.err if code else told.out
    return run


def write_work(work, task, images, teacher):
    """What a training of two of three epochs leaves, with random weights."""
    work.mkdir()
    if task == 'pretraining':
        write_run(work / 'epoch_2.pth', milan_config(teacher))
        cfg = Config(dict(model=milan_config(teacher), train_dataloader=dict(
            dataset=dict(data_root=str(images)))))
    else:
        pytest.importorskip(dict(detection='mmdet', segmentation='mmseg').get(task, 'torch'))
        cfg = Config(CONFIGS[task])
        cfg.test_dataloader.dataset.data_root = str(images)
        model = build_model(cfg, ('one', 'two', 'three'))
        torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(
            classes=('one', 'two', 'three')))), work / 'epoch_2.pth')
    cfg.train_cfg = dict(by_epoch=True, max_epochs=3)
    cfg.dump(work / 'config.py')
    log = work / '20200101_000000/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    steps, evaluated = LOGGED[task]
    log.write_text(''.join(json.dumps(one) + '\n' for i in (1, 2) for one in (
        dict(loss=2 / i, lr=0.1, epoch=i, iter=10 * i, step=10 * i, **steps),
        dict(step=i, **evaluated))))
    (log.parents[1] / 'x.log').write_text('    Python: 3.11.7 (main)\n    PyTorch: 9.9+cpu\n')
    return work


@pytest.mark.parametrize('task', [
    'pretraining', 'classification', 'segmentation',
    pytest.param('detection', marks=pytest.mark.slow)])  # imports mmdet
def test_every_task_has_a_page(task, images, teacher_folder, tmp_path, milan, look_at):
    work = write_work(tmp_path / EVIL, task, images, teacher_folder)
    assert milan('report', work) == f'{work}/report.html\n'
    page = check_page(work / 'report.html', EVIL)
    assert HEADLINES[task] in page.text and '9.9+cpu' in page.text
    assert 'The loss went from 2 to 1.' in page.text and '2 of 3 epochs' in page.text
    assert f'{work}/epoch_2.pth' in page.text and 'The whole config, config.py' in page.text
    shown = [attrs['alt'] for tag, attrs in page.elements if tag == 'img']
    assert len(shown) == (16 if task == 'pretraining' else 2)
    if task == 'pretraining':
        look_at(work / 'report.html')


def test_without_images_the_page_says_why(images, teacher_folder, tmp_path, milan):
    work = write_work(tmp_path / 'work', 'pretraining', images, teacher_folder)
    assert 'no such folder' in milan('report', tmp_path / 'none', code=2)
    gone = shutil.copytree(work, tmp_path / 'gone')
    text = (gone / 'config.py').read_text().replace(str(images), '/gone/away')
    (gone / 'config.py').write_text(text)
    told = milan('report', gone)
    assert 'without images: the images of the run are not at /gone/away now' in told
    assert 'No images: the images' in (gone / 'report.html').read_text()
    assert 'without images' not in milan('report', gone, '--images', images)
    (gone / 'epoch_2.pth').unlink()
    assert 'no checkpoint yet' in milan('report', gone)
    shutil.rmtree(gone / '20200101_000000')
    assert 'no scalars of a run' in milan('report', gone, code=2)
