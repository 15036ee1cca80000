# SPDX-License-Identifier: Apache-2.0
"""A second algorithm on MILAN's parts: what it aligns with what, and where its encoder goes."""
import copy
import os
from unittest import mock

import pytest
import timm
import torch
import yaml
from conftest import ROOT, TINY_VIT, milan_config
from helpers_eval import logged, run_tool_here
from mmengine.config import ConfigDict
from mmengine.optim import build_optim_wrapper
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer

import milan_mm
from milan_mm.checkpoints.vit import read_vit
from milan_mm.config.batch import plan_batch
from milan_mm.engine.train import read_config, start_from
from milan_mm.errors import MilanError
from milan_mm.models import CLIPLevelsTargetGenerator, CLIPTargetGenerator, DynamicAlignment
from milan_mm.models.mask_align import AlignmentHead, SmoothL1AlignmentLoss
from milan_mm.models.targets.clip_towers import wrap_tower
from milan_mm.registry import MODELS
from milan_mm.structures import MaskIds


def config(teacher, levels=2, **changes):
    """A small MaskAlign: images of 32 px, 16 patches, 4 of them seen."""
    return dict(
        dict(
            type='milan_mm.MaskAlign',
            backbone=dict(type='milan_mm.MaskedVisionTransformer', arch=dict(TINY_VIT),
                          img_size=32, patch_size=8),
            target_generator=dict(type='milan_mm.CLIPLevelsTargetGenerator', levels=levels,
                                  pretrained=str(teacher)),
            mask_generator=dict(type='milan_mm.SemanticMaskGenerator', mask_ratio=0.75),
            neck=dict(type='milan_mm.DynamicAlignment'),
            head=dict(type='milan_mm.AlignmentHead',
                      loss=dict(type='milan_mm.SmoothL1AlignmentLoss'))), **changes)


def build(*args, **kwargs):
    torch.manual_seed(0)
    model = MODELS.build(config(*args, **kwargs))
    model.init_weights()
    return model


@pytest.fixture
def model(teacher_folder):
    return build(teacher_folder)


@pytest.fixture
def images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def keys(n):
    return torch.arange(n) * 7919


# The teacher's levels

def test_levels_are_open_clips_own(teacher_folder, tiny_clip, images):
    """Three blocks, the last two of them; open_clip gives patches and CLS of each by itself."""
    teacher = CLIPLevelsTargetGenerator(levels=2, pretrained=str(teacher_folder))
    target = teacher(images)
    with torch.no_grad():
        own = tiny_clip.visual.forward_intermediates(
            images, indices=[1, 2], output_fmt='NLC', output_extra_tokens=True)
    assert teacher.dim == 2 * 64 and target.features.shape == (4, 17, 128)
    for i in range(2):
        level = target.features[..., 64 * i:64 * (i + 1)]
        assert torch.allclose(level[:, 1:], own['image_intermediates'][i], atol=1e-5)
        assert torch.allclose(level[:, :1], own['image_intermediates_prefix'][i], atol=1e-5)
    base = CLIPTargetGenerator(pretrained=str(teacher_folder))
    assert torch.equal(target.importance, base(images).importance)


def test_levels_of_a_timm_tower(images):
    """SigLIP has no CLS: patches only."""
    torch.manual_seed(0)
    visual = TimmModel('vit_base_patch16_siglip_224', embed_dim=64, image_size=32, pool='map',
                       proj='none')
    visual.trunk = timm.create_model(
        'vit_base_patch16_siglip_224', img_size=32, patch_size=8, embed_dim=64, depth=3,
        num_heads=2, num_classes=0, global_pool='map')
    visual.eval()
    teacher = CLIPLevelsTargetGenerator(levels=2, tower=wrap_tower(visual, 'SigLIP'))
    with torch.no_grad():
        own = visual.trunk.get_intermediate_layers(images, n=2)
    assert torch.allclose(teacher(images).features, torch.cat(own, dim=-1), atol=1e-5)


@pytest.mark.parametrize('changes, words', [
    (dict(levels=4), 'levels must be from 1 to 3'),
    (dict(levels=0), 'levels must be from 1 to 3'),
    (dict(neck=dict(type='milan_mm.DynamicAlignment', student_levels=3)), 'encoder has 2 blocks'),
    (dict(neck=dict(type='milan_mm.DynamicAlignment', student_levels=0)), 'at least 1'),
])
def test_more_levels_than_blocks(teacher_folder, changes, words):
    with pytest.raises(MilanError, match=words):
        MODELS.build(config(teacher_folder, **changes))


# The step

def test_alignment_against_a_loop():
    torch.manual_seed(0)
    neck = DynamicAlignment(6, 10, teacher_levels=3, student_levels=2)
    torch.nn.init.normal_(neck.level_weights)
    lower, last = torch.randn(2, 2, 5, 6)
    aligned = neck([lower, last])
    for b in range(2):
        for n in range(5):
            x = lower[b, n]
            x = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()
            adapted = [neck.adaptors[0](x), neck.adaptors[1](last[b, n])]
            for j in range(3):
                want = sum(neck.level_weights[i, j] * adapted[i] for i in range(2))
                assert torch.allclose(aligned[b, n, j], want, atol=1e-5)


@pytest.mark.parametrize('cls_in_target', [True, False])
@pytest.mark.parametrize('cls_token', [True, False])
def test_head_against_a_loop(cls_in_target, cls_token):
    """Mean over tokens and levels of smooth L1 against each level's own whitened features."""
    torch.manual_seed(0)
    aligned = torch.randn(2, 1 + 3, 2, 8)
    features = 5 + 3 * torch.randn(2, (1 if cls_in_target else 0) + 6, 16)
    visible = torch.tensor([[4, 0, 2], [5, 1, 3]])
    masks = MaskIds(visible, torch.tensor([[1, 3, 5], [0, 2, 4]]))
    losses, cosines = [], []
    for b in range(2):
        rows = [1 + p if cls_in_target else p for p in visible[b].tolist()]
        pairs = list(zip(range(1, 4), rows))
        if cls_in_target and cls_token:
            pairs.append((0, 0))
        for ours, theirs in pairs:
            for level in range(2):
                t = features[b, theirs, 8 * level:8 * level + 8]
                t = (t - t.mean()) / (t.var(unbiased=False) + 1e-5).sqrt()
                d = (aligned[b, ours, level] - t).abs()
                losses.append(torch.where(d < .5, d * d, d - .25).mean())  # beta .5
                if ours:
                    cosines.append(torch.cosine_similarity(aligned[b, ours, level], t, dim=0))
    got = AlignmentHead(SmoothL1AlignmentLoss(beta=.5), cls_token).loss(aligned, features, masks)
    assert torch.allclose(got['loss'], torch.stack(losses).mean(), atol=1e-5)
    assert torch.allclose(got['cos_visible'], torch.stack(cosines).mean(), atol=1e-5)


def test_the_step_put_together(model, images):
    """The parts called by hand, block by block, give the loss."""
    target = model.target_generator(images)
    masks = model.mask_generator(target.importance, keys(4))
    vit = model.backbone
    patches = vit.patch_embed(images)[0] + vit.pos_embed[:, 1:]
    x = torch.stack([patches[b][masks.visible[b]] for b in range(4)])
    x = torch.cat([vit.cls_token.expand(4, -1, -1), x], dim=1)
    first = vit.layers[0](x)
    last = vit.ln1(vit.layers[1](first))
    by_hand = model.head.loss(model.neck([first, last]), target.features, masks)
    losses = model.loss(images, sample_keys=keys(4))
    assert set(losses) == {'loss', 'cos_visible', 'importance_seen'}
    assert torch.allclose(losses['loss'], by_hand['loss'], atol=1e-6)
    share = target.importance.gather(1, masks.visible).sum(1) / target.importance.sum(1)
    assert torch.allclose(losses['importance_seen'], share.mean())


def test_masked_patches_play_no_part(model, images):
    target = model.target_generator(images)
    masks = model.mask_generator(target.importance, keys(4))
    aligned = torch.randn(4, 5, 2, 64)
    plain = model.head.loss(aligned, target.features, masks)['loss']
    for ids, same in ((masks.masked, True), (masks.visible, False)):
        changed = target.features.clone()
        for b in range(4):
            changed[b, 1 + ids[b]] = torch.randn_like(changed[b, 1 + ids[b]])
        assert torch.equal(model.head.loss(aligned, changed, masks)['loss'], plain) == same


def test_every_parameter_learns_and_the_teacher_does_not(model, images):
    """No parameter is without gradient, so DDP needs no find_unused_parameters."""
    before = copy.deepcopy(model.target_generator.state_dict())
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = None
    for _ in range(30):
        optimizer.zero_grad()
        losses = model.loss(images, sample_keys=keys(4))
        losses['loss'].backward()
        if first is None:
            first = losses
            assert [n for n, p in model.named_parameters()
                    if p.requires_grad and (p.grad is None or not p.grad.any())] == []
        optimizer.step()
    assert losses['loss'] < .5 * first['loss'] and losses['cos_visible'] > .8
    assert all(torch.equal(model.target_generator.state_dict()[k], v) for k, v in before.items())
    assert {k.split('.')[0] for k in model.state_dict()} == {'backbone', 'neck'}


def test_nothing_is_kept_between_steps(model, images):
    model.loss(images)
    model.backbone(images)  # as an evaluation during training does
    model.target_generator.tower(images)
    assert model.recorded.kept is None and model.target_generator.recorded.kept is None


def test_a_teacher_of_one_level(teacher_folder, images):
    """Any target generator: CLIP's output, or pixels with importance from elsewhere."""
    clip = dict(type='milan_mm.CLIPTargetGenerator', pretrained=str(teacher_folder))
    pixels = dict(type='milan_mm.PixelTargetGenerator', patch_size=8)
    for changes, width in ((dict(target_generator=clip), 48),
                           (dict(target_generator=pixels, importance_generator=clip), 192)):
        one = build(teacher_folder, **changes)
        assert one.neck.adaptors[0].out_features == width and len(one.neck.adaptors) == 1
        assert torch.isfinite(one.loss(images)['loss'])
    # has levels of its own, averaged into one target
    past = dict(type='milan_mm.EMATargetGenerator', arch=dict(TINY_VIT), levels=2)
    assert build(teacher_folder, target_generator=past).neck.level_weights.shape == (1, 1)


def test_levels_are_one_wide_target_to_milan(teacher_folder, images):
    """MILAN's step knows nothing of levels and needs no change for them."""
    levels = config(teacher_folder)['target_generator']
    milan = MODELS.build(milan_config(teacher_folder, target_generator=levels))
    assert milan.neck.decoder_pred.out_features == 128
    assert torch.isfinite(milan.loss(images)['loss'])


def test_the_whole_loss_is_one_graph(model, images):
    plain = model.loss(images, sample_keys=keys(4))
    compiled = torch.compile(model.loss, fullgraph=True, backend='eager')(
        images, sample_keys=keys(4))
    assert torch.allclose(plain['loss'], compiled['loss'], atol=1e-6)


def test_under_autocast_the_loss_is_taken_in_float32(model, images):
    plain = model.loss(images, sample_keys=keys(4))
    with torch.autocast('cpu', torch.bfloat16):
        mixed = model.loss(images, sample_keys=keys(4))
    assert mixed['loss'].dtype == torch.float32
    assert torch.allclose(plain['loss'], mixed['loss'], rtol=.05)


# Configs

def test_published_numbers():
    for name, gpus, drop_path in (('vitb_pretrain', 8, .1), ('vitb_pretrain_1gpu', 1, .1),
                                  ('vitl_pretrain', 8, .2)):
        cfg = read_config(ROOT / f'configs/mask_align/{name}.py')
        plan = plan_batch(cfg, gpus)
        assert plan.effective == plan.recipe == 1024
        assert plan.lr == pytest.approx(1.5e-4 * 1024 / 256)
        warm, cosine = cfg.param_scheduler
        assert (warm.end, cosine.begin, cosine.end, cosine.eta_min) == (20, 20, 200, 1e-5)
        assert cfg.train_cfg.max_epochs == 200 and cfg.model.mask_generator.mask_ratio == .7
        assert cfg.model.backbone.drop_path_rate == drop_path
        assert cfg.model.target_generator.levels == 5


@pytest.mark.parametrize('name', ['vitb_pretrain', 'vitb_pretrain_1gpu', 'vitl_pretrain'])
def test_config_builds(name):
    """On the meta device; the teacher is a random one of the config's width, five blocks deep."""
    cfg = read_config(ROOT / f'configs/mask_align/{name}.py')
    model = cfg.model.to_dict()
    assert model['target_generator'].pop('type') == 'milan_mm.CLIPLevelsTargetGenerator'
    vitb = 'vitb' in name
    visual = VisionTransformer(
        image_size=224, patch_size=16 if vitb else 14, width=768 if vitb else 1024, layers=5,
        heads=12 if vitb else 16, mlp_ratio=.1, output_dim=64)
    model['target_generator'] = CLIPLevelsTargetGenerator(tower=wrap_tower(visual, name))
    model['data_preprocessor'] = MODELS.build(cfg.data_preprocessor)
    with torch.device('meta'):
        model = MODELS.build(model)
    assert model.target_generator.grid_size == model.backbone.grid_size == (14, 14)
    assert len(model.neck.adaptors) == 5 and model.neck.level_weights.shape == (5, 5)
    wrapper = build_optim_wrapper(model, ConfigDict(
        type='OptimWrapper', optimizer=cfg.optim_wrapper.optimizer,
        paramwise_cfg=cfg.optim_wrapper.paramwise_cfg))
    decay = {id(p): group['weight_decay'] for group in wrapper.optimizer.param_groups
             for p in group['params']}
    assert decay[id(model.neck.level_weights)] == 0
    assert decay[id(model.neck.adaptors[0].weight)] == .05


def test_metafile_names_configs_that_are_there():
    entries = yaml.safe_load((ROOT / 'configs/mask_align/metafile.yml').read_text())['Models']
    for entry in entries:
        cfg = read_config(ROOT / entry['Config'])
        assert entry['Metadata'] == {'Epochs': cfg.train_cfg.max_epochs,
                                     'Batch Size': cfg.auto_scale_lr.base_batch_size}


# From and to other runs

SMALL = ['train_dataloader.batch_size=12', 'train_dataloader.num_workers=0',
         'train_dataloader.persistent_workers=False', 'model.backbone.img_size=32',
         'train_dataloader.dataset.pipeline.1.size=32',
         *(f'model.backbone.arch.{k}={v}' for k, v in TINY_VIT.items()),
         'model.target_generator.levels=2']


@pytest.fixture
def trained(image_folder, teacher_folder, tmp_path, capfd):
    """Eight steps of the quickstart's config, through the tool."""
    with mock.patch.dict(os.environ):  # a run leaves variables behind
        ran = run_tool_here(
            capfd, 'train', ROOT / 'configs/quickstart/mask_align.py', '--data-root',
            image_folder, '--work-dir', tmp_path / 'run', '--epochs', 2, '--cfg-options', *SMALL,
            f'model.target_generator.pretrained={teacher_folder}')
    assert not ran.returncode, ran.stdout + ran.stderr
    return tmp_path / 'run/epoch_2.pth'


def test_the_encoder_goes_on(trained, teacher_folder, tmp_path, images):
    student = read_vit(trained)
    assert student.described['algorithm'] == 'MaskAlign' and student.decoder == {}
    assert student.spec.arch == TINY_VIT and student.spec.img_size == (32, 32)
    assert student.beside == sorted(
        ['neck.level_weights'] + [f'neck.adaptors.{i}.{k}' for i in range(2)
                                  for k in ('weight', 'bias')])
    state = torch.load(trained, weights_only=True)['state_dict']

    # into MaskAlign again, by --init-from; the alignment starts fresh
    cfg = read_config(ROOT / 'configs/quickstart/mask_align.py')
    cfg.model.backbone.update(arch=dict(TINY_VIT), img_size=32)
    cfg.model.target_generator.update(levels=2, pretrained=str(teacher_folder))
    start_from(cfg, str(trained), trust=False)
    again = MODELS.build(cfg.model)
    with logged() as lines:
        again.init_weights()
    assert any('30 of 30 encoder tensors (100 %) came from' in line for line in lines)
    for key, value in again.backbone.state_dict().items():
        assert torch.equal(value, state[f'backbone.{key}']), key
    assert not torch.equal(again.neck.adaptors[0].weight, state['neck.adaptors.0.weight'])

    # into MILAN, and from MILAN into MaskAlign
    milan = MODELS.build(milan_config(teacher_folder, init_from=str(trained)))
    milan.init_weights()
    assert torch.equal(milan.backbone.layers[1].ffn.layers[1].weight,
                       state['backbone.layers.1.ffn.layers.1.weight'])
    torch.save(dict(state_dict=milan.state_dict(), meta={}), tmp_path / 'milan.pth')
    third = build(teacher_folder, init_from=str(tmp_path / 'milan.pth'))
    assert torch.equal(third.backbone.cls_token, state['backbone.cls_token'])

    # and as features
    out = milan_mm.get_model(str(trained))(images)
    again.eval()
    want = again.backbone(images, torch.arange(16).expand(4, -1))
    assert torch.allclose(out.patches, want[:, 1:], atol=1e-5)
