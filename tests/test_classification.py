# SPDX-License-Identifier: Apache-2.0
"""Finetuning and linear probing: the recipes' numbers, and small real runs."""
import re

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_VIT, run_tool
from helpers_tasks import small_classifier
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, METRICS, MODELS, TRANSFORMS, init_default_scope
from PIL import Image

from milan_mm.cli.main import parse
from milan_mm.config.batch import plan_batch
from milan_mm.config.read import read_config
from milan_mm.datasets import ImageFolder
from milan_mm.datasets.image_folder import class_names
from milan_mm.errors import MilanError

CONFIGS = sorted(p.stem for p in (ROOT / 'configs/classification').glob('*.py'))
GPUS = {name: 1 if '1gpu' in name else 8 for name in CONFIGS if name[:4] in ('vitb', 'vitl')}
# The authors' published commands (github.com/zejiangh/MILAN, README) for ViT-B; MAE's tables 9 and
# 10 (arXiv 2111.06377) for what they leave at its default, and for ViT-L's finetuning.
FINETUNE = dict(batch=1024, base_lr=1e-4, warmup=5, least_lr=1e-6, betas=(.9, .999), decay=.05,
                mixup=.8, cutmix=1., erase=.25, smoothing=.1, size=224)
FINETUNE_OF = dict(vitb=dict(epochs=100, layer_decay=.65, drop_path=.1),
                   vitl=dict(epochs=50, layer_decay=.75, drop_path=.2))
LINEAR = dict(batch=16384, warmup=10, epochs=100, momentum=.9, decay=0.)
LINEAR_LR = dict(vitb=.05, vitl=.02)
WIDTH, BLOCKS = dict(vitb=768, vitl=1024), dict(vitb=12, vitl=24)
CLASSES = ('blau', 'grün', 'rot')


def check_schedule(cfg, epochs, warmup):
    assert cfg.train_cfg.max_epochs == epochs
    warm, cosine = cfg.param_scheduler
    assert (warm.begin, warm.end, cosine.begin, cosine.end, cosine.T_max) == (
        0, warmup, warmup, epochs, epochs - warmup)
    assert warm.convert_to_iter_based and cosine.convert_to_iter_based
    return cosine


@pytest.mark.parametrize('name', sorted(n for n in GPUS if 'finetune' in n))
def test_finetuning_recipe(name):
    cfg, size, paper = read_config(ROOT / f'configs/classification/{name}.py'), name[:4], FINETUNE
    own = FINETUNE_OF[size]
    plan = plan_batch(cfg, GPUS[name])
    assert plan.effective == plan.recipe == paper['batch']
    assert plan.lr == pytest.approx(paper['base_lr'] * paper['batch'] / 256)
    wrapper = cfg.optim_wrapper
    assert (wrapper.type, wrapper.dtype) == ('AmpOptimWrapper', 'float16')
    assert (wrapper.optimizer.type, tuple(wrapper.optimizer.betas),
            wrapper.optimizer.weight_decay) == ('AdamW', paper['betas'], paper['decay'])
    assert wrapper.constructor == 'milan_mm.LayerDecayOptimWrapperConstructor'
    assert wrapper.paramwise_cfg == dict(layer_decay_rate=own['layer_decay'])
    cosine = check_schedule(cfg, own['epochs'], paper['warmup'])
    assert cosine.eta_min_ratio * plan.lr == pytest.approx(paper['least_lr'])
    assert f'_{own["epochs"]}e' in name
    backbone, head = cfg.model.backbone, cfg.model.head
    assert (backbone.arch, backbone.patch_size, backbone.img_size, backbone.drop_path_rate) == (
        f'vit-{size[3]}', 16, paper['size'], own['drop_path'])
    assert (backbone.positions, backbone.out_type, backbone.final_norm) == (
        'learned', 'avg_featmap', False)
    assert backbone.init_cfg == dict(type='milan_mm.PretrainedViT', checkpoint=None)
    assert (head.loss.label_smooth_val, head.loss.mode) == (paper['smoothing'], 'original')
    assert (head.in_channels, head.init_cfg.std) == (WIDTH[size], 2e-5)
    mixes = [(a.type, a.alpha) for a in cfg.model.train_cfg.augments]
    assert mixes == [('mmpretrain.Mixup', paper['mixup']), ('mmpretrain.CutMix', paper['cutmix'])]
    assert cfg.model.train_cfg.probs == [.5, .5]
    _, crop, arrays, _ = cfg.train_dataloader.dataset.pipeline
    assert (crop.size, tuple(crop.scale)) == (paper['size'], (.08, 1.))
    augment, erase = arrays.transforms
    assert (augment.policies, augment.num_policies, augment.magnitude_level, augment.total_level,
            augment.magnitude_std) == ('timm_increasing', 2, 9, 10, .5)
    assert (erase.erase_prob, erase.mode, erase.min_area_ratio, erase.max_area_ratio) == (
        paper['erase'], 'rand', .02, pytest.approx(1 / 3))
    # mean and deviation of the noise, and the fill of RandAugment, in BGR
    assert erase.fill_color == cfg.data_preprocessor.mean[::-1]
    assert erase.fill_std == cfg.data_preprocessor.std[::-1]
    assert augment.hparams.pad_val == [round(v) for v in erase.fill_color]
    check_evaluation(cfg)


@pytest.mark.parametrize('name', sorted(n for n in GPUS if 'linear' in n))
def test_linear_recipe(name):
    cfg, size = read_config(ROOT / f'configs/classification/{name}.py'), name[:4]
    plan = plan_batch(cfg, GPUS[name])
    assert plan.effective == plan.recipe == LINEAR['batch']
    assert plan.lr == pytest.approx(LINEAR_LR[size] * LINEAR['batch'] / 256)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.momentum, optimizer.weight_decay) == (
        'mmpretrain.LARS', LINEAR['momentum'], LINEAR['decay'])
    assert cfg.optim_wrapper.paramwise_cfg == dict(
        layer_decay_rate=1., custom_keys={'head.fc.bias': dict(lars_exclude=True)})
    cosine = check_schedule(cfg, LINEAR['epochs'], LINEAR['warmup'])
    assert cosine.eta_min == 0 and '_100e' in name
    backbone, neck, head = cfg.model.backbone, cfg.model.neck, cfg.model.head
    assert (backbone.arch, backbone.out_type, backbone.final_norm, backbone.frozen_stages) == (
        f'vit-{size[3]}', 'cls_token', True, BLOCKS[size])
    assert (neck.type, neck.input_features, neck.affine) == (
        'mmpretrain.ClsBatchNormNeck', WIDTH[size], False)
    assert (head.in_channels, head.init_cfg.std, head.loss.type) == (
        WIDTH[size], .01, 'mmpretrain.CrossEntropyLoss')
    assert 'train_cfg' not in cfg.model
    assert [t.type for t in cfg.train_dataloader.dataset.pipeline] == [
        'milan_mm.LoadPILImage', 'milan_mm.RandomResizedCropAndFlip', 'milan_mm.PackImageInputs']
    check_evaluation(cfg)


def check_evaluation(cfg):
    assert cfg.val_evaluator == dict(type='mmpretrain.Accuracy', topk=(1, 5))
    _, crop, _ = cfg.test_dataloader.dataset.pipeline
    assert (crop.size, crop.crop_ratio) == (224, 224 / 256)
    assert cfg.test_dataloader.dataset == cfg.val_dataloader.dataset
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 1000
    assert cfg.default_scope == 'mmpretrain'


@pytest.fixture(scope='module')
def classes_folder(tmp_path_factory):
    """Three colours as classes; the first has no test images, the last a broken one."""
    root = tmp_path_factory.mktemp('klassen ü')
    rng = np.random.default_rng(0)
    for split, count, names in (('train', 12, CLASSES), ('val', 5, CLASSES[1:])):
        for name in names:
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 90, (40, 48, 3))
                pixels[..., 2 - CLASSES.index(name)] += 160
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f'{i}.png')
    (root / 'val/rot/kaputt.png').write_bytes(b'\x89PNG no more')
    return root


@pytest.mark.parametrize('name', CONFIGS)
def test_config_builds(name, classes_folder):
    cfg = read_config(ROOT / f'configs/classification/{name}.py')
    init_default_scope(cfg.default_scope)
    model = cfg.model.to_dict()
    model['data_preprocessor'] = cfg.data_preprocessor.to_dict()
    if name.startswith('own'):
        assert model['head']['num_classes'] is None is model['data_preprocessor']['num_classes']
        model['head']['num_classes'] = model['data_preprocessor']['num_classes'] = 3
        assert cfg.auto_scale_lr.enable
        plan = plan_batch(cfg, 1)
        assert plan.effective == plan.recipe == 256
    with torch.device('meta'):
        built = MODELS.build(model)
    trained = sum(p.numel() for p in built.parameters() if p.requires_grad)
    head = built.head.fc.weight.numel() + built.head.fc.bias.numel()
    assert trained == head if 'linear' in name else trained > 8e7
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.update(data_root=str(classes_folder), serialize_data=False)
        sample = DATASETS.build(loader.dataset)[0]
        assert sample['inputs'].shape == (3, 224, 224) and 'gt_label' in sample['data_samples']
    METRICS.build(cfg.val_evaluator)


def test_lars_adapts_matrices_only():
    """One step of the linear recipe: lr * .001 * |w| / |g| for the matrix, lr for the bias."""
    wrapper = read_config(ROOT / 'configs/classification/vitb_linear_100e.py').optim_wrapper
    head = dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=48)
    model = MODELS.build(dict(type='mmpretrain.ImageClassifier', head=head, backbone=dict(
        type='milan_mm.MaskedVisionTransformer', arch=TINY_VIT, img_size=32, patch_size=8,
        out_type='cls_token', frozen_stages=2)))
    optimizer = build_optim_wrapper(model, dict(
        optimizer=wrapper.optimizer, constructor=wrapper.constructor,
        paramwise_cfg=wrapper.paramwise_cfg))
    weight, bias = model.head.fc.weight, model.head.fc.bias
    slope = torch.randn_like(weight)
    before = weight.detach().clone(), bias.detach().clone()
    optimizer.update_params((weight * slope).sum() + 2 * bias.sum())
    lr, rate = 3.2, 3.2 * 1e-3 * before[0].norm() / slope.norm()
    torch.testing.assert_close(weight.detach(), before[0] - rate * slope)
    torch.testing.assert_close(bias.detach(), before[1] - lr * 2)


def test_arrays_are_bgr_and_come_back():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8))
    seen = []

    def spy(results):
        seen.append(results['img'].copy())
        return results

    bridge = TRANSFORMS.build(dict(type='milan_mm.OnBGRArray', transforms=[spy]))
    out = bridge(dict(img=image))
    assert (seen[0] == np.asarray(image)[..., ::-1]).all() and seen[0].flags.c_contiguous
    assert (np.asarray(out['img']) == np.asarray(image)).all() and out['img_shape'] == (5, 7)
    # mmpretrain's Invert with certainty: each channel in its place
    bridge = TRANSFORMS.build(dict(
        type='milan_mm.OnBGRArray', transforms=[dict(type='mmpretrain.Invert', prob=1.)]))
    assert (np.asarray(bridge(dict(img=image))['img']) == 255 - np.asarray(image)).all()


def test_test_set_numbers_classes_as_the_training_set(classes_folder):
    """A test set without images of the first class must not shift the labels of the others."""
    train = ImageFolder(classes_folder, data_prefix=dict(img_path='train'), with_label=True)
    assert train.metainfo['classes'] == CLASSES
    val = dict(data_root=classes_folder, data_prefix=dict(img_path='val'), with_label=True)
    assert ImageFolder(**val).metainfo['classes'] == CLASSES[1:]
    test = ImageFolder(**val, classes_from='train')
    assert test.metainfo['classes'] == CLASSES
    assert {test.get_data_info(i)['gt_label'] for i in range(len(test))} == {1, 2}
    with pytest.raises(MilanError, match='has the class blau, which is not among the 2 classes'):
        ImageFolder(classes_folder, data_prefix=dict(img_path='train'), with_label=True,
                    classes_from='val')
    given = ImageFolder(**val, metainfo=dict(classes=('rot', 'grün')))
    assert given.get_data_info(0)['gt_label'] == 1  # grün
    with pytest.raises(MilanError, match='has the class rot, .*given.*: blau, grün'):
        ImageFolder(**val, metainfo=dict(classes=CLASSES[:2]))
    with pytest.raises(MilanError, match='no such folder.*trian, whose folders name the classes'):
        ImageFolder(**val, classes_from='trian')


def test_folders_without_images_are_no_classes(tmp_path):
    for name in ('a', 'b', 'empty', '.hidden'):
        (tmp_path / name / 'deep').mkdir(parents=True)
    with pytest.raises(MilanError, match='has no folder with images'):
        class_names(tmp_path)
    for name in ('b', 'a', '.hidden'):
        (tmp_path / name / 'deep/x.png').touch()
    assert class_names(tmp_path) == ('a', 'b')
    assert ImageFolder(tmp_path, with_label=True).metainfo['classes'] == ('a', 'b')


SMALL = [
    'train_dataloader.batch_size=12', 'val_dataloader.batch_size=8',
    *(f'{loader}_dataloader.{key}' for loader in ('train', 'val', 'test')
      for key in ('num_workers=0', 'persistent_workers=False', 'pin_memory=False',
                  'dataset.pipeline.1.size=32')),
    'optim_wrapper.accumulative_counts=1', 'optim_wrapper.optimizer.lr=.1',
    'default_hooks.logger.interval=1']


def check_run(out, work):
    """What every run on the three colours must have said and saved."""
    assert 'data: 36 images' in out and 'parameter groups:' in out
    assert 'starts from random weights' in out
    assert 'kaputt.png cannot be decoded; the evaluation counts another image' in out
    losses = [float(x) for x in re.findall(r' loss: ([\d.]+)', out)]
    assert losses[-1] < losses[0] and len(losses) == 30
    checkpoint = torch.load(work / 'epoch_10.pth', weights_only=True)
    assert checkpoint['state_dict']['head.fc.weight'].shape == (3, 48)
    assert tuple(checkpoint['meta']['dataset_meta']['classes']) == CLASSES
    best = [float(x) for x in re.findall(r'accuracy/top1: ([\d.]+)', out)][-1]
    assert best > 70
    return checkpoint['optimizer']['param_groups'], best


def test_finetuning_by_the_command_line(classes_folder, tmp_path, run_here):
    config = small_classifier(tmp_path / 'mine.py', 'finetune')
    out = run_tool('train.py', config, '--data-root', classes_folder, '--work-dir', tmp_path,
                   '--epochs', 10, '--verbose', '--cfg-options', *SMALL)
    groups, best = check_run(out, tmp_path)
    scales = {g['layer_id']: g['lr'] / groups[-1]['lr'] for g in groups}
    assert scales == pytest.approx({3: 1, 2: .65, 1: .65**2, 0: .65**3})
    told = run_here('test.py', config, tmp_path / 'epoch_10.pth', '--data-root', classes_folder,
                    '--work-dir', tmp_path / 'test', '--cfg-options', *SMALL)
    assert float(re.search(r'accuracy/top1: ([\d.]+)', told).group(1)) == best


def test_linear_probe_trains_the_head_alone(classes_folder, tmp_path):
    config = small_classifier(tmp_path / 'mine.py', 'linear')
    args = parse(['train', config, '--data-root', classes_folder, '--work-dir', tmp_path,
                  '--epochs', 10, '--cfg-options', *SMALL])
    args.run(args)
    groups, _ = check_run(next(tmp_path.glob('*/*.log')).read_text(), tmp_path)
    assert sorted(sum((g['names'] for g in groups), [])) == ['head.fc.bias', 'head.fc.weight']
    states = [torch.load(tmp_path / f'epoch_{n}.pth', weights_only=True)['state_dict']
              for n in (5, 10)]
    moved = {k for k in states[0] if (states[0][k] != states[1][k]).any()}
    assert moved == {'head.fc.weight', 'head.fc.bias', 'neck.bn.running_mean',
                     'neck.bn.running_var', 'neck.bn.num_batches_tracked'}
