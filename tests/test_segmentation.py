# SPDX-License-Identifier: Apache-2.0
"""UperNet: the recipe's numbers, and a small real run."""
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, run_tool
from helpers_tasks import SMALL_SEGMENTOR, make_scenes, small_segmentor
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, METRICS, MODELS, init_default_scope
from PIL import Image
from torch import nn

from milan_mm.compat.sync_bn import replace_sync_bn
from milan_mm.config.batch import plan_batch
from milan_mm.config.data_paths import move_data
from milan_mm.config.own_data import fill_num_classes
from milan_mm.config.read import read_config
from milan_mm.config.schedule import set_length
from milan_mm.inference.tasks import load_task_model

CONFIGS = sorted(p.stem for p in (ROOT / 'configs/upernet').glob('*.py'))
GPUS = {name: 1 if '1gpu' in name else 8 for name in CONFIGS if name[:4] in ('vitb', 'vitl')}
# mmseg's UperNet for BEiT (arXiv 2106.08254) and MAE (arXiv 2111.06377), which MILAN keeps; for
# ViT-L layer decay and drop path of MAE's table 9.
PAPER = dict(batch=16, updates=160000, warmup=1500, lr=1e-4, decay=.05, betas=(.9, .999),
             size=(512, 512), stride=(341, 341), scale=(2048, 512), ratio=(.5, 2.), most=.75,
             rescales=[4, 2, 1, .5], classes=150)
SIZES = dict(
    vitb=dict(arch='vit-b', width=768, blocks=(3, 5, 7, 11), layer_decay=.65, drop_path=.1),
    vitl=dict(arch='vit-l', width=1024, blocks=(7, 11, 15, 23), layer_decay=.75, drop_path=.2))
CLASSES = ('Boden', 'rot', 'grün')


@pytest.mark.parametrize('name', sorted(GPUS))
def test_training_recipe(name):
    cfg, own, paper = read_config(ROOT / f'configs/upernet/{name}.py'), SIZES[name[:4]], PAPER
    plan = plan_batch(cfg, GPUS[name])
    assert plan.effective == plan.recipe == paper['batch'] and plan.lr == paper['lr']
    wrapper = cfg.optim_wrapper
    assert (wrapper.type, wrapper.dtype, wrapper.optimizer.type) == (
        'AmpOptimWrapper', 'float16', 'AdamW')
    assert (tuple(wrapper.optimizer.betas), wrapper.optimizer.weight_decay) == (
        paper['betas'], paper['decay'])
    assert wrapper.constructor == 'milan_mm.LayerDecayOptimWrapperConstructor'
    assert wrapper.paramwise_cfg == dict(layer_decay_rate=own['layer_decay'])
    # The loop and the schedule count batches, of which an update may need several.
    batches = plan.accumulation * paper['updates']
    assert (cfg.train_cfg.type, cfg.train_cfg.max_iters) == ('IterBasedTrainLoop', batches)
    warm, poly = cfg.param_scheduler
    assert (warm.begin, warm.end, warm.start_factor, warm.by_epoch) == (
        0, plan.accumulation * paper['warmup'], 1e-6, False)
    assert (poly.begin, poly.end, poly.power, poly.eta_min, poly.by_epoch) == (
        warm.end, batches, 1., 0., False)
    assert batches % cfg.train_cfg.val_interval == 0
    hook = cfg.default_hooks.checkpoint
    assert (hook.interval, hook.by_epoch, hook.save_best) == (
        cfg.train_cfg.val_interval, False, 'mIoU')
    assert cfg.log_processor.by_epoch is False and cfg.default_scope == 'mmseg'
    assert '_512_160k' in name


@pytest.mark.parametrize('name', sorted(GPUS))
def test_model_and_data_recipe(name):
    cfg, own, paper = read_config(ROOT / f'configs/upernet/{name}.py'), SIZES[name[:4]], PAPER
    backbone, neck = cfg.model.backbone, cfg.model.neck
    decode, auxiliary = cfg.model.decode_head, cfg.model.auxiliary_head
    assert (backbone.arch, backbone.patch_size, backbone.img_size, backbone.drop_path_rate,
            tuple(backbone.out_indices)) == (own['arch'], 16, 512, own['drop_path'], own['blocks'])
    assert (backbone.positions, backbone.out_type, backbone.final_norm) == (
        'learned', 'featmap', False)
    assert backbone.init_cfg == dict(type='milan_mm.PretrainedViT', checkpoint=None)
    assert (neck.type, neck.embed_dim, neck.rescales) == (
        'mmseg.Feature2Pyramid', own['width'], paper['rescales'])
    assert (decode.type, decode.in_channels, decode.channels, decode.loss_decode.loss_weight) == (
        'mmseg.UPerHead', [own['width']] * 4, own['width'], 1.)
    assert (auxiliary.type, auxiliary.in_channels, auxiliary.in_index, auxiliary.num_convs,
            auxiliary.channels, auxiliary.loss_decode.loss_weight) == (
        'mmseg.FCNHead', own['width'], 2, 1, 256, .4)
    assert decode.num_classes == auxiliary.num_classes == paper['classes']
    assert {part.norm_cfg.type for part in (neck, decode, auxiliary)} == {'SyncBN'}
    test = cfg.model.test_cfg
    assert (test.mode, test.crop_size, test.stride) == ('slide', paper['size'], paper['stride'])
    _, _, resize, crop, flip, colours, _ = cfg.train_dataloader.dataset.pipeline
    assert (resize.scale, resize.ratio_range, resize.keep_ratio) == (
        paper['scale'], paper['ratio'], True)
    assert (crop.crop_size, crop.cat_max_ratio, flip.prob, colours.type) == (
        paper['size'], paper['most'], .5, 'mmseg.PhotoMetricDistortion')
    assert cfg.data_preprocessor.size == paper['size']
    _, resize, annotations, _ = cfg.val_dataloader.dataset.pipeline
    assert (resize.scale, resize.keep_ratio) == (paper['scale'], True)
    assert annotations.type == 'mmseg.LoadAnnotations'  # not resized
    assert cfg.test_dataloader.dataset == cfg.val_dataloader.dataset
    assert cfg.val_evaluator == dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])


@pytest.fixture(scope='module')
def ade_folder(tmp_path_factory):
    return make_scenes(tmp_path_factory.mktemp('eigene Bilder'), CLASSES)


@pytest.mark.parametrize('name', CONFIGS)
def test_config_builds(name, ade_folder):
    cfg = read_config(ROOT / f'configs/upernet/{name}.py')
    init_default_scope(cfg.default_scope)
    move_data(cfg, str(ade_folder))
    classes = PAPER['classes']
    if name.startswith('own'):
        assert cfg.auto_scale_lr.enable and plan_batch(cfg, 1).effective == PAPER['batch']
        assert fill_num_classes(cfg) == CLASSES
        classes = 3
    model = cfg.model.to_dict()
    model['data_preprocessor'] = cfg.data_preprocessor.to_dict()
    with torch.device('meta'):
        built = MODELS.build(model).eval()
        features = built.backbone(torch.empty(1, 3, 512, 512))
        pyramid = built.neck(features)
        logits = built.decode_head(pyramid)
    width = SIZES.get(name[:4], SIZES['vitb'])['width']
    assert [tuple(f.shape) for f in features] == [(1, width, 32, 32)] * 4
    assert [tuple(f.shape) for f in pyramid] == [(1, width, 512 // s, 512 // s)
                                                 for s in (4, 8, 16, 32)]
    assert logits.shape == (1, classes, 128, 128)
    assert built.auxiliary_head(pyramid).shape == (1, classes, 32, 32)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        dataset = DATASETS.build(loader.dataset)
        assert dataset.data_root == str(ade_folder)
        sample = dataset[0]
        truth = sample['data_samples'].gt_sem_seg.data
        if loader is cfg.train_dataloader:
            assert max(truth.shape) <= 512 and sample['inputs'].shape[1:] == truth.shape[1:]
            batch = MODELS.build(cfg.data_preprocessor)(pseudo_collate([sample, sample]), True)
            assert batch['inputs'].shape == (2, 3, 512, 512)
            assert batch['data_samples'][1].gt_sem_seg.shape == (512, 512)
        else:
            assert sample['inputs'].shape == (3, 512, round(512 / 70 * 96))
            assert truth.shape == (1, 70, 96)
        # ADE20K leaves 0 out, and counts from 1; one's own data counts from 0.
        least = 0 if name.startswith('own') else 1
        assert set(truth.unique().tolist()) <= {*(v - least for v in (0, 1, 2) if v >= least), 255}
        if name.startswith('own'):
            assert dataset.metainfo['classes'] == CLASSES
    METRICS.build(cfg.val_evaluator)


def test_another_number_of_iterations():
    cfg = read_config(ROOT / 'configs/upernet/vitb_ade20k_512_160k.py')
    set_length(cfg, iters=16000)
    warm, poly = cfg.param_scheduler
    assert (warm.end, poly.begin, poly.end, cfg.train_cfg.max_iters) == (150, 150, 16000, 16000)


def test_sync_bn_is_bn_where_there_is_nobody_to_share_with(monkeypatch):
    path = ROOT / 'configs/upernet/vitb_ade20k_512_160k.py'
    monkeypatch.delenv('WORLD_SIZE', raising=False)

    def replaced(launcher, cuda, processes=None):
        if processes:
            monkeypatch.setenv('WORLD_SIZE', processes)
        cfg = read_config(path)
        cfg.launcher = launcher
        cfg.extra = [dict(norm=(dict(type='mmengine.SyncBN', eps=.1), ))]
        number = replace_sync_bn(cfg, cuda)
        model = cfg.model
        types = {part.norm_cfg.type for part in (model.neck, model.decode_head,
                                                 model.auxiliary_head)}
        assert model.neck.norm_cfg.requires_grad is True  # other options stay
        assert cfg.extra[0]['norm'][0]['eps'] == .1
        types.add(cfg.extra[0]['norm'][0]['type'].rpartition('.')[2])
        return number, types

    some, none = (5, {'BN'}), (0, {'SyncBN'})  # one is the config's own variable norm_cfg
    assert replaced('none', True) == replaced('none', False) == some
    assert replaced('slurm', True) == none and replaced('slurm', False) == some
    assert replaced('pytorch', True, '8') == none and replaced('pytorch', False, '8') == some
    assert replaced('pytorch', True, '1') == some
    cfg = Config(dict(model=dict(norm_cfg=dict(type='LN'), name='SyncBN')))
    assert replace_sync_bn(cfg) == 0 and cfg.model == dict(norm_cfg=dict(type='LN'), name='SyncBN')


@pytest.fixture(scope='module')
def small_config(tmp_path_factory):
    return small_segmentor(tmp_path_factory.mktemp('config') / 'mine.py')


@pytest.fixture(scope='module')
def trained(small_config, ade_folder, tmp_path_factory):
    """60 steps of 4 images; the folder and what was printed."""
    work = tmp_path_factory.mktemp('run')
    out = run_tool('train.py', small_config, '--data-root', ade_folder, '--work-dir', work,
                   '--iters', 60, '--cfg-options', *SMALL_SEGMENTOR)
    return work, out


def test_training(trained):
    work, out = trained
    assert 'SyncBN is BN here' in out and 'starts from random weights' in out
    assert 'batch: 4 images x 1 processes x 1 accumulated = 4 per update' in out
    losses = [float(x) for x in re.findall(r' loss: ([\d.]+)', out)]
    assert len(losses) == 60 and np.mean(losses[-5:]) < losses[0] / 2
    assert ' decode.loss_ce: ' in out and ' aux.loss_ce: ' in out
    checkpoint = torch.load(work / 'iter_60.pth', weights_only=True)
    assert checkpoint['state_dict']['decode_head.conv_seg.weight'].shape == (3, 32, 1, 1)
    assert tuple(checkpoint['meta']['dataset_meta']['classes']) == CLASSES
    groups = checkpoint['optimizer']['param_groups']
    scales = {g['layer_id']: g['lr_scale'] for g in groups}
    assert scales == pytest.approx({i: .65**(5 - i) for i in range(6)})
    assert any('pos_embed' in name for g in groups for name in g['names'])  # learned


def test_slide_evaluation(trained, small_config, ade_folder, tmp_path, run_here):
    """The tool's mIoU is that of predictions, averaged over windows, in the images' own size."""
    work, _ = trained
    run_here('test.py', small_config, work / 'iter_60.pth', '--data-root', ade_folder,
             '--work-dir', tmp_path, '--out', tmp_path / 'told.json', '--cfg-options',
             *SMALL_SEGMENTOR)
    told = json.loads((tmp_path / 'told.json').read_text())
    cfg = read_config(small_config)
    cfg.merge_from_dict({'test_dataloader.dataset.pipeline.1.scale': (256, 64)})
    move_data(cfg, str(ade_folder))
    fill_num_classes(cfg)
    trained = load_task_model(cfg, work / 'iter_60.pth')
    assert trained.task == 'segmentation' and trained.classes == CLASSES
    joint = np.zeros((3, 3))
    for path in sorted((ade_folder / 'images/validation').glob('*.jpg')):
        image = Image.open(path)
        labels = by_windows(trained.model, image)
        truth = np.asarray(Image.open(ade_folder / 'annotations/validation' / f'{path.stem}.png'))
        known = truth != 255
        np.add.at(joint, (truth[known], labels[known]), 1)
        predicted = trained(image, Path(path)).pred_sem_seg.data[0].numpy()
        assert (predicted != labels).mean() < 1e-3
    hits = joint.diagonal()
    iou = hits / (joint.sum(0) + joint.sum(1) - hits)
    assert told['mIoU'] == pytest.approx(100 * iou.mean(), abs=.02)
    assert told['aAcc'] == pytest.approx(100 * hits.sum() / joint.sum(), abs=.02)
    assert told['mIoU'] > 70


@torch.no_grad()
def by_windows(model, image):
    """Labels of an image whose shorter side becomes 64: logits of windows of 64, 43 apart."""
    assert not any(isinstance(part, nn.SyncBatchNorm) for part in model.modules())
    import mmcv
    scaled = mmcv.imrescale(np.asarray(image.convert('RGB')), (256, 64))
    pixels = torch.from_numpy(scaled.copy()).permute(2, 0, 1).float()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (
        [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]))
    pixels = ((pixels - mean) / std)[None]
    height, width = pixels.shape[2:]
    total, count = torch.zeros(1, 3, height, width), torch.zeros(height, width)
    for top in starts(height):
        for left in starts(width):
            window = pixels[..., top:top + 64, left:left + 64]
            logits = model.decode_head(model.neck(model.backbone(window)))
            total[..., top:top + 64, left:left + 64] += nn.functional.interpolate(
                logits, size=window.shape[2:], mode='bilinear')
            count[top:top + 64, left:left + 64] += 1
    assert count.max() >= 2 or (height, width) == (64, 64)
    logits = nn.functional.interpolate(
        total / count, size=image.size[::-1], mode='bilinear')
    return logits.argmax(1)[0].numpy()


def starts(side):
    """Windows begin 43 apart; the last ends with the image."""
    return sorted({min(start, side - 64) for start in range(0, side - 64 + 43, 43)})
