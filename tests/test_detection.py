# SPDX-License-Identifier: Apache-2.0
"""Mask R-CNN: the recipes' numbers, one's own COCO files, and a small real run."""
import json
import re

import numpy as np
import pytest
import torch
from conftest import ROOT, run_tool
from helpers_tasks import SMALL_DETECTOR, small_detector
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, MODELS, init_default_scope
from PIL import Image

from milan_mm.config.batch import plan_batch
from milan_mm.config.own_data import fill_num_classes
from milan_mm.config.read import read_config
from milan_mm.config.schedule import set_length
from milan_mm.errors import MilanError
from milan_mm.models.encoder import ARCHITECTURES

CONFIGS = sorted(p.stem for p in (ROOT / 'configs/mask_rcnn').glob('*.py'))
GPUS = {name: 1 if '1gpu' in name else 8 for name in CONFIGS if name[:4] in ('vitb', 'vitl')}
# ViTDet (arXiv 2203.16527) App. A.1 and its published configuration: images per update, learning
# rate, warm-up in updates; updates and the two at which the learning rate falls.
RECIPE = dict(batch=64, lr=1e-4, warmup=250, betas=(.9, .999), decay=.1, size=1024, window=14,
              scale=(.1, 2.), fall=(163889 / 184375, 177546 / 184375))
# global blocks, layer decay, drop path; millions of parameters (table 5), width
RECIPE_OF = dict(vitb=((2, 5, 8, 11), .7, .1, 111, 768), vitl=((5, 11, 17, 23), .8, .4, 331, 1024))
CLASSES = ('zebra', 'ant')


def config(name):
    cfg = read_config(ROOT / f'configs/mask_rcnn/{name}.py')
    init_default_scope(cfg.default_scope)
    return cfg


@pytest.mark.parametrize('name', sorted(GPUS))
def test_recipe(name):
    cfg, paper = config(name), RECIPE
    blocks, layer_decay, drop_path, _, width = RECIPE_OF[name[:4]]
    plan = plan_batch(cfg, GPUS[name])
    assert plan.effective == plan.recipe == paper['batch'] and plan.lr == paper['lr']
    wrapper = cfg.optim_wrapper
    assert (wrapper.type, wrapper.dtype) == ('AmpOptimWrapper', 'float16')
    assert (wrapper.optimizer.type, tuple(wrapper.optimizer.betas),
            wrapper.optimizer.weight_decay) == ('AdamW', paper['betas'], paper['decay'])
    assert wrapper.constructor == 'milan_mm.LayerDecayOptimWrapperConstructor'
    assert wrapper.paramwise_cfg == dict(layer_decay_rate=layer_decay)
    epochs = cfg.train_cfg.max_epochs
    assert f'_{epochs}e' in name
    warm, falls = cfg.param_scheduler
    assert not warm.by_epoch and warm.end == paper['warmup'] * plan.accumulation
    short = [8, 11]  # of 12: Detectron's 1x, 60,000 and 80,000 of 90,000 updates
    assert falls.by_epoch and falls.gamma == .1 and falls.milestones == (
        short if epochs == 12 else [round(epochs * at) for at in paper['fall']])
    backbone = cfg.model.backbone
    assert (backbone.arch, backbone.img_size, backbone.patch_size, backbone.window_size) == (
        f'vit-{name[3]}', paper['size'], 16, paper['window'])
    assert (tuple(backbone.global_indices), backbone.drop_path_rate) == (blocks, drop_path)
    assert backbone.init_cfg == dict(type='milan_mm.PretrainedViT', checkpoint=None)
    assert cfg.model.neck.in_channels == ARCHITECTURES[backbone.arch]['embed_dims'] == width
    pipeline = cfg.train_dataloader.dataset.pipeline
    _, _, resize, crop, _, flip, _ = pipeline
    assert (resize.type, tuple(resize.scale), tuple(resize.ratio_range), resize.keep_ratio) == (
        'RandomResize', (1024, 1024), paper['scale'], True)
    assert (crop.crop_type, tuple(crop.crop_size), crop.recompute_bbox) == (
        'absolute', (1024, 1024), True)
    assert flip.prob == .5
    assert cfg.val_dataloader.dataset.pipeline[1] == dict(
        type='mmdet.Resize', scale=(1024, 1024), keep_ratio=True)
    assert cfg.model.data_preprocessor.pad_size_divisor == 1024
    assert cfg.val_evaluator.metric == ['bbox', 'segm']


@pytest.mark.parametrize('name', sorted({n[:4] + '_coco_lsj1024_100e' for n in GPUS}))
def test_model_is_the_published_one(name):
    with torch.device('meta'):
        model = MODELS.build(config(name).model)
    positions = model.backbone.pos_embed
    # The published count has the positions of 14 x 14 patches and a CLS token, not of 64 x 64.
    count = sum(p.numel() for p in model.parameters()) - positions.numel() + positions[0, 0].numel(
    ) * 197
    assert round(count / 1e6) == RECIPE_OF[name[:4]][3]
    box, mask, rpn = model.roi_head.bbox_head, model.roi_head.mask_head, model.rpn_head
    assert (len(box.shared_convs), len(box.shared_fcs), len(mask.convs), len(rpn.rpn_conv)) == (
        4, 1, 4, 2)
    assert box.shared_fcs[0].out_features == 1024 and not box.reg_class_agnostic
    norms = [m for m in (model.neck, box, mask) for m in m.modules() if 'LN2d' in type(m).__name__]
    assert len(norms) == 1 + 8 + 4 + 4 and {norm.eps for norm in norms} == {1e-6}
    with torch.device('meta'):
        levels = model.extract_feat(torch.empty(1, 3, 1024, 1024))
    assert [tuple(x.shape[1:]) for x in levels] == [(256, 1024 // s, 1024 // s)
                                                    for s in (4, 8, 16, 32, 64)]
    assert [s[0] for s in rpn.prior_generator.strides] == [4, 8, 16, 32, 64]


def coco_file(path, sizes, names=CLASSES, ids=(7, 3)):
    """Ellipses as polygons; the first category has the larger id."""
    rng = np.random.default_rng(0)
    content = dict(
        categories=[dict(id=i, name=n) for i, n in zip(ids, names)], images=[], annotations=[])
    folder = path.parents[1] / path.stem
    folder.mkdir(exist_ok=True)
    path.parent.mkdir(exist_ok=True)
    for image, (width, height) in enumerate(sizes):
        name = f'bild ä {image}.png'
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(folder / name)
        content['images'].append(dict(id=image, file_name=name, width=width, height=height))
        for _ in range(2):
            a, b = rng.uniform(.2, .4, 2) * (width, height)
            x, y = rng.uniform((a, b), (width - a, height - b))
            angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
            outline = np.stack([x + a * np.cos(angle), y + b * np.sin(angle)], 1)
            content['annotations'].append(dict(
                id=len(content['annotations']) + 1, image_id=image, category_id=int(
                    rng.choice(ids)), iscrowd=0, area=float(3 * a * b),
                bbox=[float(v) for v in (x - a, y - b, 2 * a, 2 * b)],
                segmentation=[outline.ravel().tolist()]))
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def coco(tmp_path):
    coco_file(tmp_path / 'annotations/train.json', [(80, 60), (60, 90), (64, 64), (50, 70)])
    coco_file(tmp_path / 'annotations/val.json', [(70, 50), (64, 64)])
    return tmp_path


def own(root):
    cfg = config('own_coco')
    for part in (cfg.train_dataloader.dataset, cfg.val_dataloader.dataset,
                 cfg.test_dataloader.dataset):
        part.data_root = str(root)
    for metric in (cfg.val_evaluator, cfg.test_evaluator):
        metric.ann_file = f'{root}/annotations/val.json'
    return cfg


def test_own_data_says_how_many_classes(coco):
    cfg = own(coco)
    assert cfg.model.roi_head.bbox_head.num_classes is None
    assert fill_num_classes(cfg) == CLASSES
    heads = cfg.model.roi_head
    assert heads.bbox_head.num_classes == heads.mask_head.num_classes == 2
    plan = plan_batch(cfg, 1)
    assert plan.effective == plan.recipe == 16 and plan.lr == pytest.approx(1e-4 * 16 / 64)
    train = DATASETS.build(cfg.train_dataloader.dataset)
    assert train.metainfo['classes'] == CLASSES
    names = {7: 'zebra', 3: 'ant'}
    written = json.loads((coco / 'annotations/train.json').read_text())['annotations']
    for i in range(len(train)):  # a label means the same in the file and in the dataset
        info = train.get_data_info(i)
        assert [CLASSES[x['bbox_label']] for x in info['instances']] == [
            names[a['category_id']] for a in written if a['image_id'] == info['img_id']]
    metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = train.metainfo
    sample = train[0]
    # a crop of at most 1024 of an image resized by at most 2 times what fits
    assert sample['inputs'].shape[0] == 3 and max(sample['inputs'].shape[1:]) <= 1024
    masks = sample['data_samples'].gt_instances.masks
    assert masks.masks.shape[1:] == tuple(sample['inputs'].shape[1:])
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert model.roi_head.bbox_head.fc_cls.out_features == 3


@pytest.mark.parametrize('change, words', [
    (dict(names=CLASSES[::-1]), 'another order: ant, zebra. The training set has zebra, ant'),
    (dict(names=('zebra', 'bee')), 'lacks the category ant')])
def test_categories_of_the_files_must_agree(coco, change, words):
    coco_file(coco / 'annotations/val.json', [(70, 50)], **change)
    with pytest.raises(MilanError, match=re.escape(words)):
        fill_num_classes(own(coco))


def test_files_that_are_no_coco(coco):
    (coco / 'annotations/train.json').write_text('[1, 2]')
    with pytest.raises(MilanError, match='train.json is no COCO file'):
        fill_num_classes(own(coco))
    (coco / 'annotations/train.json').unlink()
    with pytest.raises(MilanError, match='no such annotation file'):
        fill_num_classes(own(coco))


def test_published_classes_stay():
    cfg = config('vitb_coco_lsj1024_12e')
    assert fill_num_classes(cfg) == () and cfg.model.roi_head.bbox_head.num_classes == 80


def test_other_lengths():
    cfg = config('vitb_coco_lsj1024_100e')
    set_length(cfg, epochs=25)
    warm, falls = cfg.param_scheduler
    assert (warm.end, falls.end, falls.milestones) == (500, 25, [22, 24])


def test_train_and_test_by_the_command_line(coco, tmp_path, run_here):
    """Everything of own_coco.py but its sizes."""
    small = small_detector(tmp_path / 'mine.py')
    options = ['--data-root', coco, '--cfg-options', *SMALL_DETECTOR]
    out = run_tool('train.py', small, '--work-dir', tmp_path / 'work', '--epochs', 1, *options)
    assert 'data: 4 images' in out and 'starts from random weights' in out
    losses = [float(x) for x in re.findall(r' loss_mask: ([\d.]+)', out)]
    assert len(losses) == 2 and all(0 < x < 10 for x in losses)
    checkpoint = torch.load(tmp_path / 'work/epoch_1.pth', weights_only=True)
    assert tuple(checkpoint['meta']['dataset_meta']['classes']) == CLASSES
    assert checkpoint['state_dict']['roi_head.bbox_head.fc_cls.weight'].shape == (3, 32)
    groups = checkpoint['optimizer']['param_groups']
    assert {(g['layer_id'], round(g['lr_scale'], 6)) for g in groups} == {
        (3, 1), (2, .7), (1, .49), (0, .343)}
    undecayed = {n for g in groups if not g['weight_decay'] for n in g['names']}
    assert {'backbone.pos_embed', 'backbone.layers.1.attn.rel_pos_h', 'neck.stages.0.1.weight'
            } <= undecayed
    assert 'backbone.layers.1.attn.qkv.weight' not in undecayed
    trained = re.findall(r'coco/(?:bbox|segm)_mAP: (-?[\d.]+)', out)
    told = run_here('test.py', small, tmp_path / 'work/epoch_1.pth', '--work-dir',
                    tmp_path / 'test', '--out', tmp_path / 'metrics.json', *options)
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert 0 <= metrics['coco/bbox_mAP'] <= 1 and 0 <= metrics['coco/segm_mAP'] <= 1
    assert re.findall(r'coco/(?:bbox|segm)_mAP: (-?[\d.]+)', told) == trained and trained


def test_config_of_ones_own_may_stand_anywhere(tmp_path):
    (tmp_path / 'mine.py').write_text(
        f"_base_ = '{ROOT}/configs/mask_rcnn/vitb_coco_lsj1024_12e_1gpu.py'\n"
        'train_dataloader = dict(batch_size=1)\n')
    cfg = Config.fromfile(tmp_path / 'mine.py')
    assert plan_batch(cfg, 1).effective == 16
