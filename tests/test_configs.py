# SPDX-License-Identifier: Apache-2.0
"""Every config builds, and the paper's configs hold the paper's numbers."""
import functools

import mmengine.registry
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import Registry

from milan_mm.config.batch import apply_plan, plan_batch
from milan_mm.config.read import read_config
from milan_mm.config.schedule import set_length
from milan_mm.models import CLIPTargetGenerator
from milan_mm.registry import DATASETS, HOOKS, MODELS

# Those of the tasks that come after pretraining are in test_{classification,detection,...}.py.
CONFIGS = sorted((p.relative_to(ROOT).as_posix() for p in (ROOT / 'configs').rglob('*.py')
                  if p.parent.name in ('milan', 'mae') or p.stem in ('milan', 'mae')),
                 key=lambda p: ('vitl' in p or 'vith' in p, p))

# MILAN (arXiv 2208.06049) Sec. 4 and App. A, and the published recipe: images per update, base
# learning rate per 256 images, epochs, warm-up, share masked; decoder width, blocks, heads.
PAPER = dict(batch=4096, base_lr=1.5e-4, epochs=400, warmup=40, ratio=.75, decoder=(512, 8, 16),
             betas=(.9, .95), decay=.05, scale=(.2, 1.), size=224)
# width, blocks, heads, hidden width, patch (Dosovitskiy et al., table 1)
SIZES = dict(vits=(384, 12, 6, 1536, 16), vitb=(768, 12, 12, 3072, 16),
             vitl=(1024, 24, 16, 4096, 16), vith=(1280, 32, 16, 5120, 14))
# GPUs that the file's arithmetic is for
GPUS = {'milan/vits_pretrain': 8, 'milan/vitb_pretrain': 8, 'milan/vitb_pretrain_1gpu': 1,
        'milan/vitb_pretrain_64gpus': 64, 'milan/vitl_pretrain': 8, 'milan/vith_pretrain': 8,
        'milan/vitl_pretrain_fsdp': 8, 'milan/vith_pretrain_fsdp': 8, 'mae/vitb_pretrain': 8,
        'mae/vitl_pretrain': 8}


def name_of(config):
    return config.removeprefix('configs/').removesuffix('.py')


@functools.lru_cache(maxsize=1)
def untrained_teacher(model):
    """The CLIP a config names, with random weights; on the CPU, open_clip builds nowhere else."""
    return CLIPTargetGenerator(model, pretrained=None)


def build(cfg, teacher_folder):
    """The model, on the meta device but for its teacher."""
    model = cfg.model.to_dict()
    target = model['target_generator']
    if 'CLIP' in target['type']:
        model['target_generator'] = untrained_teacher(target['model'])
    model['data_preprocessor'] = MODELS.build(cfg.data_preprocessor)
    with torch.device('meta'):
        return MODELS.build(model)


@pytest.mark.parametrize('config', CONFIGS)
def test_config_builds(config, teacher_folder, image_folder):
    cfg = read_config(ROOT / config)
    if 'quickstart/milan' in config:  # its teacher is made by the quickstart
        cfg.model.backbone.update(img_size=32)
        from milan_mm.models import MILAN
        model = cfg.model.to_dict()
        model['target_generator']['pretrained'] = str(teacher_folder)
        assert isinstance(MODELS.build(model), MILAN)
    else:
        model = build(cfg, teacher_folder)
        assert sum(p.numel() for p in model.parameters()) > 1e6
        grid = model.backbone.grid_size
        assert tuple(model.target_generator.grid_size) == grid
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = str(image_folder)
    sample = DATASETS.build(dataset)[0]
    assert tuple(sample['inputs'].shape[1:]) == (cfg.model.backbone.img_size, ) * 2 or \
        'quickstart' in config
    for hook in cfg.default_hooks.values():
        HOOKS.build(dict(hook))


def types_of(value):
    if isinstance(value, dict):
        yield from [value['type']] if 'type' in value else []
        value = value.values()
    for part in value if not isinstance(value, str) and hasattr(value, '__iter__') else ():
        yield from types_of(part)


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').rglob('*.py')), ids=lambda p: p.stem)
def test_types_need_no_default_scope(path):
    """Whatever is not mmengine's own is named with its scope, so that configs may be mixed."""
    roots = [root for root in vars(mmengine.registry).values() if isinstance(root, Registry)]
    # Of mmcv, where roots come late, and of torch.
    known = {'nms', 'RoIAlign', 'torch.distributed.fsdp.wrap.size_based_auto_wrap_policy'}
    bare = {name for name in types_of(read_config(path).to_dict())
            if not name.startswith(('milan_mm.', 'mmpretrain.', 'mmdet.', 'mmseg.'))}
    assert not [name for name in bare - known if not any(name in root for root in roots)]


@pytest.mark.parametrize('name', sorted(GPUS))
def test_paper_numbers(name):
    cfg = read_config(ROOT / f'configs/{name}.py')
    amp = cfg.optim_wrapper.type == 'AmpOptimWrapper' and cfg.optim_wrapper.dtype == 'float16'
    assert amp != ('fsdp' in name)  # as published; sharded runs take bfloat16 instead
    plan = plan_batch(cfg, GPUS[name])
    assert plan.effective == plan.recipe == PAPER['batch']
    assert plan.lr == pytest.approx(PAPER['base_lr'] * PAPER['batch'] / 256)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, tuple(optimizer.betas), optimizer.weight_decay) == (
        'AdamW', PAPER['betas'], PAPER['decay'])
    assert cfg.train_cfg.max_epochs == PAPER['epochs']
    warm, cosine = cfg.param_scheduler
    assert (warm.end, cosine.begin, cosine.end, cosine.eta_min) == (
        PAPER['warmup'], PAPER['warmup'], PAPER['epochs'], 0)
    assert cfg.model.mask_generator.mask_ratio == PAPER['ratio']
    neck = cfg.model.neck
    assert (neck.decoder_embed_dim, neck.decoder_depth, neck.decoder_num_heads) == PAPER['decoder']
    crop = cfg.train_dataloader.dataset.pipeline[1]
    assert (crop.size, tuple(crop.scale)) == (PAPER['size'], PAPER['scale'])
    from milan_mm.models.encoder import ARCHITECTURES
    arch, size = ARCHITECTURES[cfg.model.backbone.arch], SIZES[name.split('/')[1][:4]]
    assert (*arch.values(), cfg.model.backbone.patch_size) == size
    if name.startswith('milan'):
        assert 'normalize' not in cfg.model.target_generator  # pixels as published
        assert cfg.model.head.tokens == 'all'
        parts = ('CLIPTargetGenerator', 'SemanticMaskGenerator', 'PromptingDecoder')
    else:
        assert cfg.model.head.tokens == 'masked'
        parts = ('PixelTargetGenerator', 'RandomMaskGenerator', 'MAEDecoder')
    assert parts == tuple(cfg.model[p].type.removeprefix('milan_mm.')
                          for p in ('target_generator', 'mask_generator', 'neck'))


def test_every_recipe_is_asserted():
    recipes = {name_of(c) for c in CONFIGS if 'pretrain' in c}
    assert recipes == {*GPUS, 'milan/vitb_pretrain_fast'}


def test_fast_recipe_has_the_papers_student_views():
    cfg = read_config(ROOT / 'configs/milan/vitb_pretrain_fast.py')
    paper = read_config(ROOT / 'configs/milan/vitb_pretrain.py')
    plan = plan_batch(cfg, 8)
    assert plan.effective == plan.recipe == PAPER['batch']
    assert cfg.train_cfg.max_epochs == PAPER['epochs']
    crop = cfg.train_dataloader.dataset.pipeline[1]
    (size, epochs), = crop.pop('phases')
    assert size % 16 == 0 and epochs < PAPER['epochs']
    assert crop == paper.train_dataloader.dataset.pipeline[1]
    assert cfg.model.mask_generator.pop('predicted') == .5 and cfg.model == paper.model
    assert cfg.optim_wrapper.optimizer == paper.optim_wrapper.optimizer
    assert cfg.optim_wrapper.paramwise_cfg == paper.optim_wrapper.paramwise_cfg


def test_learning_rate_follows_the_batch():
    cfg = read_config(ROOT / 'configs/milan/vitb_pretrain.py')
    words = apply_plan(cfg, plan_batch(cfg, 2))
    assert 'NOT the recipe' in words and cfg.optim_wrapper.optimizer.lr == pytest.approx(2.4e-3)
    cfg.auto_scale_lr.enable = True
    words = apply_plan(cfg, plan_batch(cfg, 2))  # 256 x 2 x 2 = 1024
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(6e-4) and 'scaled to 0.0006' in words
    assert cfg.auto_scale_lr.enable is False  # or mmengine would scale a second time


def test_own_images_scale_by_themselves():
    cfg = read_config(ROOT / 'configs/milan/own_images.py')
    cfg.merge_from_dict({'train_dataloader.batch_size': 64})
    apply_plan(cfg, plan_batch(cfg, 1))  # 64 x 4 = 256
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1.5e-4)


@pytest.mark.parametrize('epochs, warmup', [(100, 10), (800, 80), (20, 2), (3, 0), (1, 0)])
def test_other_numbers_of_epochs(epochs, warmup):
    cfg = read_config(ROOT / 'configs/milan/vitb_pretrain.py')
    set_length(cfg, epochs=epochs)
    assert cfg.train_cfg.max_epochs == epochs
    cosine = cfg.param_scheduler[-1]
    assert (cosine.begin, cosine.end, cosine.T_max) == (warmup, epochs, epochs - warmup)
    assert len(cfg.param_scheduler) == (2 if warmup else 1)


def test_configs_resolve_from_another_project(tmp_path):
    """A config of one's own that names the components through custom_imports."""
    (tmp_path / 'mine.py').write_text(f"_base_ = '{ROOT}/configs/milan/vitb_pretrain.py'\n"
                                      'train_dataloader = dict(batch_size=7)\n')
    assert Config.fromfile(tmp_path / 'mine.py').train_dataloader.batch_size == 7
