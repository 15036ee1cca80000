# SPDX-License-Identifier: Apache-2.0
"""Layer-wise decay of the learning rate: each parameter's group against the published formula."""
import math
import re
from collections import Counter

import pytest
import torch
from conftest import ROOT, TINY_VIT
from mmengine.optim import CosineAnnealingLR, LinearLR, build_optim_wrapper
from mmengine.registry import MODELS
from torch import nn

from milan_mm.config.read import read_config
from milan_mm.errors import MilanError

LR, DECAY, RATE = 1e-3, 0.05, 0.5
NEVER_DECAYED = ('cls_token', 'pos_embed', 'mask_token', 'rel_pos_h', 'rel_pos_w')


def vit(**changes):
    return dict(dict(type='milan_mm.MaskedVisionTransformer', arch=dict(TINY_VIT), img_size=32,
                     patch_size=8, positions='learned', out_type='avg_featmap', final_norm=False),
                **changes)


def classifier(backbone=None):
    return MODELS.build(dict(
        type='mmpretrain.ImageClassifier', backbone=backbone or vit(),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=48)))


def optimizer_of(model, rate=RATE, lr=LR, decay=DECAY, **paramwise):
    return build_optim_wrapper(model, dict(
        optimizer=dict(type='AdamW', lr=lr, weight_decay=decay),
        constructor='milan_mm.LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(layer_decay_rate=rate, **paramwise)))


def published_scale(name, blocks, rate):
    """BEiT and MAE: layers 0 (embeddings), 1..L (blocks), L + 1 (the rest); rate ** (L + 1 - d)."""
    block = re.match(r'backbone\.layers\.(\d+)\.', name)
    if block:
        layer = int(block.group(1)) + 1
    elif re.match(r'backbone\.(patch_embed|pos_embed|cls_token)', name):
        layer = 0
    else:
        layer = blocks + 1
    return rate**(blocks + 1 - layer)


def check_groups(model, optimizer, blocks, rate=RATE, lr=LR, decay=DECAY):
    """Prints each parameter's group and holds it against the formula."""
    names = {id(p): name for name, p in model.named_parameters()}
    seen = Counter()
    for group in optimizer.param_groups:
        assert group['names'] == [names[id(p)] for p in group['params']]
        for name, parameter in zip(group['names'], group['params']):
            seen[name] += 1
            print(f'{name:60} layer {group["layer_id"]:2}  scale {group["lr_scale"]:.4g}  '
                  f'lr {group["lr"]:.4g}  decay {group["weight_decay"]:g}')
            scale = published_scale(name, blocks, rate)
            assert group['lr_scale'] == pytest.approx(scale, rel=1e-12), name
            assert group['lr'] == pytest.approx(lr * scale, rel=1e-12), name
            spared = parameter.ndim <= 1 or name.endswith(NEVER_DECAYED)
            assert group['weight_decay'] == (0 if spared else decay), name
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert dict(seen) == dict.fromkeys(trained, 1)  # each exactly once, frozen ones not at all
    pairs = [(g['layer_id'], g['weight_decay']) for g in optimizer.param_groups]
    assert len(set(pairs)) == len(pairs) <= 2 * (blocks + 2)


def test_every_parameter_of_a_classifier():
    model = classifier()
    optimizer = optimizer_of(model).optimizer
    check_groups(model, optimizer, blocks=2)
    assert [g['lr_scale'] for g in optimizer.param_groups] == [.125, .125, .25, .25, .5, .5, 1, 1]


@pytest.mark.parametrize('name, blocks, rate', [('vitb_finetune_100e', 12, .65),
                                                ('vitl_finetune_50e', 24, .75)])
def test_published_sizes(name, blocks, rate):
    cfg = read_config(ROOT / f'configs/classification/{name}.py')
    model = cfg.model.to_dict()
    model['data_preprocessor'] = cfg.data_preprocessor.to_dict()
    with torch.device('meta'):
        model = MODELS.build(model)
    wrapper = build_optim_wrapper(model, dict(  # of float32: there is no CUDA device
        optimizer=cfg.optim_wrapper.optimizer, constructor=cfg.optim_wrapper.constructor,
        paramwise_cfg=cfg.optim_wrapper.paramwise_cfg))
    check_groups(model, wrapper.optimizer, blocks, rate, lr=4e-4)


def test_frozen_parameters_are_left_out():
    model = classifier(vit(frozen_stages=1))
    wrapper = optimizer_of(model)
    check_groups(model, wrapper.optimizer, blocks=2)
    names = {n for g in wrapper.optimizer.param_groups for n in g['names']}
    assert 'backbone.layers.1.ln1.weight' in names and 'backbone.layers.0.ln1.weight' not in names
    assert 'backbone.cls_token' not in names


def test_segmentor():
    pytest.importorskip('mmseg')
    model = MODELS.build(dict(
        type='mmseg.EncoderDecoder', data_preprocessor=dict(type='mmseg.SegDataPreProcessor'),
        backbone=vit(out_type='featmap', out_indices=(0, 1)),
        decode_head=dict(type='mmseg.FCNHead', in_channels=48, channels=8, num_convs=1,
                         in_index=1, num_classes=3, norm_cfg=dict(type='BN')),
        test_cfg=dict(mode='whole')))
    wrapper = optimizer_of(model)
    check_groups(model, wrapper.optimizer, blocks=2)
    head = [g['lr_scale'] for g in wrapper.optimizer.param_groups
            if 'decode_head.conv_seg.weight' in g['names']]
    assert head == [1]


def test_detector_with_relative_positions():
    pytest.importorskip('mmdet')
    boxes = dict(bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder'),
                 loss_bbox=dict(type='mmdet.L1Loss'), loss_cls=dict(
                     type='mmdet.CrossEntropyLoss', use_sigmoid=True))
    model = MODELS.build(dict(
        type='mmdet.RPN', data_preprocessor=dict(type='mmdet.DetDataPreprocessor'),
        backbone=dict(type='milan_mm.WindowedVisionTransformer', arch=TINY_VIT, img_size=32,
                      patch_size=8, window_size=2, global_indices=(1, )),
        neck=dict(type='mmdet.FPN', in_channels=[48], out_channels=8, num_outs=1),
        rpn_head=dict(type='mmdet.RPNHead', in_channels=8, feat_channels=8,
                      anchor_generator=dict(type='mmdet.AnchorGenerator', scales=[2], ratios=[1.],
                                            strides=[8]), **boxes),
        train_cfg=dict(rpn=None), test_cfg=dict(rpn=None)))
    optimizer = optimizer_of(model, rate=.7).optimizer
    check_groups(model, optimizer, blocks=2, rate=.7)
    groups = {name: g for g in optimizer.param_groups for name in g['names']}
    relative = [groups[f'backbone.layers.{i}.attn.rel_pos_h'] for i in (0, 1)]
    assert [(g['layer_id'], g['weight_decay']) for g in relative] == [(1, 0), (2, 0)]
    assert groups['bbox_head.rpn_cls.weight']['lr'] == LR


def test_learning_rates_of_a_schedule():
    """Warm-up and cosine multiply every group: the ratios of the layers stay to the end."""
    model = classifier()
    wrapper = optimizer_of(model)
    schedule = [LinearLR(wrapper, start_factor=0.1, begin=0, end=3, by_epoch=False),
                CosineAnnealingLR(wrapper, T_max=6, begin=3, end=9, eta_min_ratio=1e-3,
                                  by_epoch=False)]
    seen = []
    for _ in range(9):
        seen.append([g['lr'] / g['lr_scale'] for g in wrapper.optimizer.param_groups])
        assert max(seen[-1]) == pytest.approx(min(seen[-1]))
        wrapper.update_params(sum(p.sum() for p in model.parameters()))
        for scheduler in schedule:
            scheduler.step()
    full = [rates[0] / LR for rates in seen]
    assert full[0] == pytest.approx(0.1) and max(full) == pytest.approx(1)
    # MAE: scale * (least + (lr - least) * (1 + cos) / 2), the least value being scaled too.
    share = 1e-3 + (1 - 1e-3) * (1 + math.cos(math.pi * 5 / 6)) / 2
    last = {g['layer_id']: g['lr'] for g in wrapper.optimizer.param_groups}
    assert last == pytest.approx({d: LR * RATE**(3 - d) * share for d in range(4)})


def test_an_update_moves_each_layer_by_its_rate():
    """Adam's first step is the learning rate itself, whatever the gradient."""
    model = classifier()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrapper = optimizer_of(model, decay=0.)
    wrapper.update_params(sum((p * torch.rand_like(p)).sum() for p in model.parameters()))
    for name, parameter in model.named_parameters():
        moved = (parameter - before[name]).abs().mean().item()
        assert moved == pytest.approx(LR * published_scale(name, 2, RATE), rel=1e-3), name


def test_wrapped_model():
    model = classifier()
    check_groups(model, optimizer_of(nn.DataParallel(model)).optimizer, blocks=2)


def test_custom_keys():
    model = classifier()
    wrapper = optimizer_of(model, custom_keys={
        'head': dict(lr_mult=10.), 'head.fc.bias': dict(decay_mult=2., lars_exclude=True),
        'pos_embed': dict(decay_mult=1.)})
    groups = {name: g for g in wrapper.optimizer.param_groups for name in g['names']}
    head, bias, positions = (groups[n] for n in
                             ('head.fc.weight', 'head.fc.bias', 'backbone.pos_embed'))
    assert head['lr'] == pytest.approx(10 * LR) and head['weight_decay'] == DECAY
    assert bias['lr'] == LR and bias['weight_decay'] == 2 * DECAY and bias['lars_exclude']
    assert positions['lr'] == LR * RATE**3 and positions['weight_decay'] == DECAY
    assert 'lars_exclude' not in head


def test_summary_is_logged(tmp_path):
    from mmengine.logging import MMLogger
    logger = MMLogger.get_instance('layer_decay', log_file=str(tmp_path / 'log'))
    optimizer_of(classifier(vit(frozen_stages=1)))
    text = (tmp_path / 'log').read_text()
    assert logger is MMLogger.get_current_instance()
    row = re.search(r'^ +3 +1\.000e\+00 +1\.000e-03 +0\.05 +1 +144$', text, re.M)  # head 3 x 48
    assert row and 'frozen: 16 tensors' in text


@pytest.mark.parametrize('paramwise, words', [
    (dict(), r'in \(0, 1\], got None'),
    (dict(layer_decay_rate=0), r'in \(0, 1\], got 0'),
    (dict(layer_decay_rate=1.5), r'got 1\.5'),
    (dict(layer_decay_rate='.65'), r"got '\.65'"),
    (dict(layer_decay_rate=True), 'got True'),
    (dict(layer_decay_rate=.65, bias_decay_mult=0.), 'bias_decay_mult, which'),
])
def test_bad_options(paramwise, words):
    with pytest.raises(MilanError, match=words):
        build_optim_wrapper(classifier(), dict(
            optimizer=dict(type='AdamW', lr=LR, weight_decay=DECAY),
            constructor='milan_mm.LayerDecayOptimWrapperConstructor', paramwise_cfg=paramwise))


def test_bad_models_and_optimizers():
    for model in (nn.Linear(2, 2), nn.ModuleDict(dict(backbone=nn.Linear(2, 2)))):
        with pytest.raises(MilanError, match='get_layer_depth'):
            optimizer_of(model)
    with pytest.raises(MilanError, match='state lr and weight_decay, got lr=0.001'):
        build_optim_wrapper(classifier(), dict(
            optimizer=dict(type='AdamW', lr=LR),
            constructor='milan_mm.LayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=RATE)))
