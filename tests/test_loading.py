# SPDX-License-Identifier: Apache-2.0
"""Images for mmdet's and mmseg's pipelines: as mmcv reads them, and none ends a run."""
import os

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import BaseDataset
from PIL import Image

from milan_mm.datasets import LoadBGRImage
from milan_mm.datasets.decoding import UnreadableImageError
from milan_mm.datasets.loading import keep_notes, noted_unreadable


class Files(BaseDataset):

    def load_data_list(self):
        return [dict(img_path=p) for p in self.metainfo['paths']]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(
            tmp_path / f'{i}.png')
    (tmp_path / '2.png').write_bytes((tmp_path / '2.png').read_bytes()[:60])
    monkeypatch.setitem(os.environ, 'MILAN_MM_UNREADABLE_NOTES', '')
    return tmp_path


def test_pixels_and_shapes_are_mmcvs(folder):
    ours, theirs = (load(dict(img_path=str(folder / '0.png')))
                    for load in (LoadBGRImage(), LoadImageFromFile()))
    assert np.array_equal(ours['img'], theirs['img']) and ours['img'].dtype == np.uint8
    assert ours['img_shape'] == theirs['img_shape'] == ours['ori_shape'] == (20, 30)


def test_another_sample_is_taken_and_the_path_noted(folder):
    keep_notes(folder)
    paths = [str(folder / f'{i}.png') for i in range(4)]
    dataset = Files(metainfo=dict(paths=paths), pipeline=[LoadBGRImage()], serialize_data=False)
    np.random.seed(0)
    assert dataset[2]['img'].shape == (20, 30, 3)
    assert dataset[2]['img'].shape == (20, 30, 3)
    assert noted_unreadable() == [paths[2]]  # once, however often it was met
    keep_notes(folder)
    assert noted_unreadable() == []


def test_an_evaluation_names_it(folder):
    with pytest.raises(UnreadableImageError, match='2.png'):
        LoadBGRImage(skip_unreadable=False)(dict(img_path=str(folder / '2.png')))


def test_a_training_goes_on_and_says_so(tmp_path, run_here):
    """UperNet at quickstart scale on eight scenes, one spoilt within, behind a whole header."""
    from milan_mm.lab.quickstart.scenes import make_all_scenes
    make_all_scenes(tmp_path / 'scenes', None, None, None, 16, 2, seed=0, log=lambda line: None)
    broken = sorted((tmp_path / 'scenes/ade/images/training').iterdir())[3]
    with Image.open(broken) as image:
        image.save(broken, 'PNG')
    content = bytearray(broken.read_bytes())
    content[len(content) // 2:len(content) // 2 + 100] = bytes(100)
    broken.write_bytes(content)
    out = run_here(
        'train.py', 'configs/quickstart/segmentation.py', '--data-root', tmp_path / 'scenes/ade',
        '--work-dir', tmp_path / 'run', '--iters', 4, '--cfg-options',
        'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0',
        'default_hooks.unreadable.interval=4', 'default_hooks.unreadable.max_share=0.5')
    assert f'1 of 16 images cannot be decoded and were replaced by others; new: {broken}' in out
    assert (tmp_path / 'run/unreadable_images.txt').read_text().strip() == str(broken)
    assert 'mIoU: ' in out and (tmp_path / 'run/iter_4.pth').is_file()
