# SPDX-License-Identifier: Apache-2.0
"""What version 0.1.0 wrote is read: tests/data/before_renaming was trained and saved by it."""
import shutil
import warnings

import pytest
import torch
from conftest import ROOT
from helpers_eval import run_tool_here
from mmengine.config import Config
from safetensors.torch import load_file

import milan_mm
from milan_mm.checkpoints.saved_config import saved_config
from milan_mm.compat import old_names
from milan_mm.compat.old_names import OLD_NAMES, renew
from milan_mm.config.read import read_config
from milan_mm.inference.pretraining import load_pretraining
from milan_mm.lab.ablation.study import read_study

OLD = ROOT / 'tests/data/before_renaming'
NAMES = [(registry, old, new) for registry, names in OLD_NAMES.items()
         for old, new in names.items()]


@pytest.fixture(autouse=True)
def nothing_warned_of():
    old_names._warn.cache_clear()


@pytest.mark.parametrize('registry, old, new', NAMES, ids=[old for _, old, _ in NAMES])
def test_a_part_is_built_by_its_old_name(registry, old, new, image_folder):
    """By mmengine alone, and with one warning however often."""
    options = dict(data_root=str(image_folder)) if new == 'ImageFolder' else {}
    with pytest.warns(FutureWarning, match=f'milan_mm.{old} is called milan_mm.{new}') as said:
        parts = [registry.build(dict(type=f'milan_mm.{old}', **options)) for _ in range(2)]
    assert [type(part) for part in parts] == [registry.get(new)] * 2
    assert len([one for one in said if one.category is FutureWarning]) == 1


def test_mmengine_builds_the_old_data(image_folder):
    dataset = Config.fromfile(OLD / 'tiny.py').train_dataloader.dataset
    dataset.data_root = str(image_folder)
    with pytest.warns(FutureWarning, match='PictureFolder'):
        sample = next(iter(milan_mm.registry.DATASETS.build(dataset)))
    assert sample['inputs'].shape == (3, 32, 32)


def test_config_beside_and_within_the_checkpoint():
    with pytest.warns(FutureWarning, match='UnreadablePicturesHook'):
        beside = read_config(OLD / 'tiny.py')
    within = saved_config(OLD / 'epoch_1.pth')
    for cfg in (beside, within):
        assert cfg.default_hooks.unreadable.type == 'milan_mm.UnreadableImagesHook'
        assert cfg.train_dataloader.dataset.pipeline[0].type == 'milan_mm.LoadPILImage'
        assert 'icture' not in cfg.pretty_text
    assert beside.model == within.model


def test_same_features_as_recorded_then():
    images = torch.sin(torch.arange(2 * 3 * 32 * 32.)).view(2, 3, 32, 32)
    with torch.no_grad():
        features = milan_mm.get_model(OLD / 'epoch_1.pth')(images)
    for name, recorded in load_file(OLD / 'features.safetensors').items():
        assert torch.allclose(getattr(features, name), recorded, atol=1e-5), name


def test_the_whole_model(teacher_folder):
    for config in (None, OLD / 'tiny.py'):
        model = load_pretraining(OLD / 'epoch_1.pth', config, teacher=str(teacher_folder))
        assert sum(p.numel() for p in model.neck.parameters()) > 1000


def test_training_goes_on(teacher_folder, image_folder, tmp_path, monkeypatch, capfd):
    """From the old config, and from the old checkpoint: one step more."""
    (tmp_path / 'images').mkdir()
    for path in sorted(image_folder.rglob('*.png'))[:4]:
        shutil.copy(path, tmp_path / 'images')
    monkeypatch.chdir(tmp_path)
    done = run_tool_here(
        capfd, 'train', OLD / 'tiny.py', '--data-root', 'images', '--epochs', 2, '--work-dir',
        'work', '--resume', OLD / 'epoch_1.pth', '--cfg-options',
        f'model.target_generator.pretrained={teacher_folder}')
    assert done.returncode == 0, done.stdout + done.stderr
    [log] = (tmp_path / 'work').glob('*/*.log')
    [step] = [line for line in log.read_text().splitlines() if 'Epoch(train) [2]' in line]
    assert '[1/1]' in step and 'images_per_s' in step and 'pictures_per_s' not in step


def test_configs_of_own_pictures(tmp_path):
    (tmp_path / 'mine.py').write_text(f"_base_ = '{ROOT}/configs/milan/own_pictures.py'\n")
    for path in (tmp_path / 'mine.py', 'configs/milan/own_pictures.py'):
        with pytest.warns(FutureWarning, match='own_images.py'):
            assert read_config(path).auto_scale_lr.base_batch_size == 512


def test_place_of_a_study(tmp_path):
    path = tmp_path / 'study.py'
    path.write_text(f"_base_ = '{ROOT}/studies/mask_align.py'\n"
                    "prepare = [dict(images=dict(tool='quickstart.py', makes='x', "
                    "arguments=['--images', '{pictures}']))]\n")
    with pytest.warns(FutureWarning, match='{images}'):
        assert read_study(path).takes_images


def test_names_of_today_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter('error', FutureWarning)
        renew(read_config('milan_mm::milan/own_images.py'))
