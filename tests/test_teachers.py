# SPDX-License-Identifier: Apache-2.0
"""Teachers beside CLIP: each against the forward of the library it comes from."""
import json

import open_clip
import pytest
import timm
import torch
from conftest import ROOT, TINY_CLIP, TINY_VIT, milan_config
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from safetensors.torch import save_file
from timm.models.vision_transformer import ResPostBlock
from torch.nn import functional as F

import milan_mm
from milan_mm.checkpoints import read_checkpoint
from milan_mm.engine.hooks import describe_encoder
from milan_mm.errors import MilanError
from milan_mm.models.targets.encoder import cls_attention
from milan_mm.models.targets.timm_towers import TimmTower
from milan_mm.registry import MODELS

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
SMALL = dict(img_size=32, patch_size=8, embed_dim=64, depth=3, num_heads=2)
PIXELS = dict(mean=IMAGENET[0], std=IMAGENET[1])


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def qkv_row(attn, x, normed=None):
    """Attention of token 0, from a fused qkv map, written out with whole matrices."""
    batch, length, width = x.shape
    heads = attn.num_heads
    q, k, _ = attn.qkv(x).reshape(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    if normed is not None:
        q, k = normed(q, k)
    scores = (q / (width // heads)**.5) @ k.transpose(-2, -1)
    return scores.softmax(-1).mean(1)[:, 0]


@pytest.fixture(scope='module')
def run(tmp_path_factory, teacher_folder):
    """A checkpoint as a pretraining run leaves it, and its encoder."""
    torch.manual_seed(0)
    model = MODELS.build(milan_config(teacher_folder, data_preprocessor=PIXELS))
    model.backbone.init_weights()
    with torch.no_grad():
        for parameter in model.backbone.layers.parameters():
            parameter.add_(torch.randn_like(parameter) * .1)
    path = tmp_path_factory.mktemp('run') / 'epoch_1.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(milan_mm=describe_encoder(model))),
               path)
    model.backbone.eval()  # mmpretrain's gives nothing back
    return path, model.backbone


def test_encoder_of_an_earlier_run(run, images):
    path, vit = run
    teacher = milan_mm.EncoderTargetGenerator(str(path))
    teacher.match_student((4, 4), *IMAGENET)
    target = teacher(images)
    caught = []
    vit.layers[-1].register_forward_pre_hook(lambda module, args: caught.append(args[0]))
    with torch.no_grad():
        tokens = vit(images)[-1]
        row = qkv_row(vit.layers[-1].attn, vit.layers[-1].ln1(caught[0]))
        assert torch.allclose(cls_attention(vit.layers[-1], caught[0]), row, atol=1e-6)
    assert torch.allclose(target.features, tokens, atol=1e-5)
    assert torch.allclose(target.importance, row[:, 1:], atol=1e-6)
    assert row.min() >= 0 and torch.allclose(row.sum(1), torch.ones(2), atol=1e-5)
    assert teacher.dim == TINY_VIT['embed_dims'] and target.importance.std() > 1e-4
    assert not any(p.requires_grad for p in teacher.parameters()) and not teacher.train().training


def test_encoder_gets_its_own_pixels_and_the_students_grid(run, images):
    path, vit = run
    teacher = milan_mm.EncoderTargetGenerator(str(path))
    pixels = torch.rand(2, 3, 48, 64) * 255
    other = torch.tensor([[100., 110, 120], [50., 60, 70]]).view(2, 3, 1, 1)
    mean, std = torch.tensor(IMAGENET).view(2, 3, 1, 1)
    teacher.match_student((6, 8), *other.flatten(1).tolist())
    target = teacher((pixels - other[0]) / other[1])
    with torch.no_grad():  # mmpretrain interpolates its positions itself
        assert torch.allclose(target.features, vit((pixels - mean) / std)[-1], atol=1e-4)
    assert target.importance.shape == (2, 48)
    with pytest.raises(MilanError, match='mean and std'):
        teacher.match_student((4, 4), None, None)


def test_a_step_with_an_encoder_as_teacher(run, images):
    generator = dict(type='milan_mm.EncoderTargetGenerator', checkpoint=str(run[0]))
    model = MODELS.build(
        milan_config('', target_generator=generator, data_preprocessor=PIXELS))
    losses = model.loss(images)
    losses['loss'].backward()
    assert 0 < losses['loss'] < 4 and model.backbone.cls_token.grad.abs().sum() > 0
    assert not any('target_generator' in key for key in model.state_dict())


def test_encoder_refuses(tmp_path):
    with pytest.raises(MilanError, match='not found'):
        milan_mm.EncoderTargetGenerator(str(tmp_path / 'none.pth'))
    with pytest.raises(MilanError, match="'student' or 'own'"):
        milan_mm.EncoderTargetGenerator(str(tmp_path), normalize='imagenet')


def timm_vit(name, **args):
    """A small model of timm whose weights are not those of a fresh one."""
    torch.manual_seed(0)
    vit = timm.create_model(name, num_classes=0, **SMALL, **args).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(torch.randn_like(parameter) * .1)
    return vit


def unfused_rows(vit, images):
    """All rows of the last block's attention, caught as timm computes them without fusing."""
    attn, caught = vit.blocks[-1].attn, []
    attn.fused_attn = False
    hook = attn.attn_drop.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    with torch.no_grad():
        vit.forward_features(images)
    hook.remove()
    attn.fused_attn = True
    return caught[0].mean(1)


CLS_MODELS = {
    'plain': ('vit_tiny_patch16_224', {}),
    'dinov2, LayerScale': ('vit_small_patch14_dinov2', dict(init_values=.5)),
    'dinov2, registers': ('vit_small_patch14_reg4_dinov2', dict(init_values=.5)),
    'CLIP of timm, a norm before': ('vit_base_patch16_clip_224', {}),
    'query and key norms': ('vit_tiny_patch16_224', dict(qk_norm=True)),
    'post-norm': ('vit_tiny_patch16_224', dict(block_fn=ResPostBlock, init_values=.5)),
    'dinov3, rotary, registers': ('vit_small_patch16_dinov3', dict(global_pool='token')),
    'EVA02, rotary, apart': ('eva02_base_patch16_clip_224', dict(global_pool='token')),
    'EVA02, post-norm': ('eva02_enormous_patch14_clip_224', dict(global_pool='token')),
}


@pytest.mark.parametrize('name', CLS_MODELS)
def test_timm_tower_pooled_by_cls(name, images):
    model, args = CLS_MODELS[name]
    vit = timm_vit(model, **args)
    tower = TimmTower(vit, model)
    features, importance = tower(images)
    prefix = vit.num_prefix_tokens
    with torch.no_grad():
        tokens = vit.forward_features(images)
        assert torch.allclose(features[:, 0], vit(images), atol=1e-5)
    assert torch.allclose(features, torch.cat([tokens[:, :1], tokens[:, prefix:]], 1), atol=1e-5)
    rows = unfused_rows(vit, images)
    assert torch.allclose(importance, rows[:, 0, prefix:], atol=1e-6)
    row = tower.tokens_and_row(images)[1]
    assert row.min() >= 0 and torch.allclose(row.sum(1), torch.ones(2), atol=1e-5)
    assert row.shape == (2, 16 + prefix) and importance.std() > 1e-4
    assert features.shape == (2, 17, 64) and not torch.allclose(rows[:, 0], rows[:, -1], atol=1e-4)


@pytest.mark.parametrize('model, args', [
    ('vit_tiny_patch16_224', dict(global_pool='avg')),
    ('vit_tiny_patch16_224', dict(global_pool='avg', class_token=False)),
    ('eva02_tiny_patch14_224', {}),
])
def test_timm_tower_pooled_by_the_mean(model, args, images):
    """The mean over the patches' rows; the first feature is what the model itself pools."""
    vit = timm_vit(model, **args)
    tower, prefix = TimmTower(vit, model), vit.num_prefix_tokens
    features, importance = tower(images)
    rows = unfused_rows(vit, images)
    assert torch.allclose(importance, rows[:, prefix:, prefix:].mean(1), atol=1e-6)
    assert torch.allclose(tower.tokens_and_row(images)[1].sum(1), torch.ones(2), atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(features[:, 0], vit(images), atol=1e-5)
        patches = vit.fc_norm(vit.forward_features(images))[:, prefix:]
    assert torch.allclose(features[:, 1:], patches, atol=1e-5)


def test_timm_tower_pooled_by_attention_over_cls_too(images):
    """Perception Encoder: a pooling query above a CLS token and patches."""
    vit = timm_vit('vit_pe_core_base_patch16_224')
    tower = TimmTower(vit, 'PE')
    features, importance = tower(images)
    pool, caught = vit.attn_pool, []
    pool.q.register_forward_hook(lambda *args: caught.append(args[2]))
    pool.kv.register_forward_hook(lambda *args: caught.append(args[2]))
    with torch.no_grad():
        assert torch.allclose(features[:, 0], vit(images), atol=1e-5)
    heads = pool.num_heads
    q, kv = caught[0].reshape(2, 1, heads, -1), caught[1].reshape(2, 17, 2, heads, -1)
    row = torch.einsum('bqhd,bkhd->bhqk', q, kv[:, :, 0]).div((64 // heads)**.5)
    assert torch.allclose(importance, row.softmax(-1).mean(1)[:, 0, 1:], atol=1e-6)
    assert importance.shape == (2, 16)


def test_eva_of_open_clip_from_a_folder(tmp_path):
    """A tower of timm in CLIP, pooled by CLS, a linear map behind; the text tower is not built."""
    vision = dict(timm_model_name='eva02_tiny_patch14_224', timm_pool='token', timm_proj='linear',
                  image_size=224)
    torch.manual_seed(0)
    clip = open_clip.CustomTextCLIP(48, vision, TINY_CLIP['text_cfg']).eval()
    save_file(clip.state_dict(), tmp_path / 'open_clip_model.safetensors')
    config = dict(embed_dim=48, vision_cfg=vision, text_cfg=dict(hf_model_name='none/none'))
    (tmp_path / 'open_clip_config.json').write_text(
        json.dumps(dict(model_cfg=config, preprocess_cfg=dict(mean=[.5] * 3, std=[.5] * 3))))
    teacher = milan_mm.CLIPTargetGenerator(pretrained=str(tmp_path))
    assert teacher.tower.pooling == 'cls' and teacher.tower.mean == (.5, .5, .5)
    teacher.match_student((4, 6), None, None)
    images = torch.randn(2, 3, 56, 84)
    target = teacher(images)
    trunk = clip.visual.trunk
    trunk.set_input_size(img_size=(56, 84))
    with torch.no_grad():
        assert torch.allclose(target.features[:, 0], clip.visual(images), atol=1e-5)
        tokens = clip.visual.head(trunk.fc_norm(trunk.forward_features(images)))
    assert torch.allclose(target.features, tokens, atol=1e-5) and teacher.dim == 48
    assert torch.allclose(target.importance, unfused_rows(trunk, images)[:, 0, 1:], atol=1e-6)


def generator_of(vit, tmp_path, model, **args):
    """A TimmTargetGenerator whose weights come from a file of ``vit``'s."""
    torch.save(vit.state_dict(), tmp_path / 'vit.pth')
    return milan_mm.TimmTargetGenerator(model, str(tmp_path / 'vit.pth'),
                                        model_args={**SMALL, **args})


@pytest.mark.parametrize('model, args', [
    ('vit_small_patch14_reg4_dinov2', dict(init_values=.5)),
    ('vit_small_patch16_dinov3', {}),
])
def test_timm_generator_grid_and_pixels(model, args, tmp_path, images):
    """Another grid than the weights': as timm itself does on an image of that size."""
    vit = timm_vit(model, global_pool='token', **args)
    teacher = generator_of(vit, tmp_path, model, **args)
    assert teacher.dim == 64 and teacher.tower.pooling == 'cls'
    other = torch.tensor([[100., 110, 120], [50., 60, 70]]).view(2, 3, 1, 1)
    mean, std = torch.tensor(IMAGENET).view(2, 3, 1, 1)
    assert torch.allclose(torch.tensor(teacher.tower.mean), mean.flatten() / 255, atol=1e-5)
    teacher.match_student((6, 4), *other.flatten(1).tolist())
    pixels = torch.rand(2, 3, 48, 32) * 255
    target = teacher((pixels - other[0]) / other[1])
    vit.set_input_size(img_size=(48, 32))
    with torch.no_grad():
        tokens = vit.forward_features((pixels - mean) / std)
    assert torch.allclose(target.features[:, 1:], tokens[:, 5:], atol=1e-4)
    assert target.importance.shape == (2, 24)
    # a student of 16-pixel patches has the same grid from an image twice the size
    assert teacher(torch.randn(1, 3, 96, 64)).features.shape == (1, 25, 64)


def test_dinov2_as_published(tmp_path, images):
    """Registers and positions in the names of DINOv2's authors, a classifier beside."""
    vit = timm_vit('vit_small_patch14_reg4_dinov2', init_values=.5)
    state = vit.state_dict()
    cls, registers = state.pop('cls_token'), state.pop('reg_token')
    first = torch.randn(1, 1, 64)
    state['pos_embed'] = torch.cat([first, state['pos_embed']], dim=1)
    state.update(cls_token=cls - first, register_tokens=registers, mask_token=torch.zeros(1, 64))
    torch.save(state, tmp_path / 'dinov2.pth')
    teacher = milan_mm.TimmTargetGenerator(
        'vit_small_patch14_reg4_dinov2', str(tmp_path / 'dinov2.pth'), 'student',
        model_args=dict(SMALL, init_values=.5))
    with torch.no_grad():
        assert torch.allclose(teacher(images).features[:, 0], vit(images), atol=1e-5)
    assert milan_mm.EncoderTargetGenerator(str(tmp_path / 'dinov2.pth')).dim == 64


def test_timm_folder(tmp_path, images):
    vit = timm_vit('vit_tiny_patch16_224')
    save_file(vit.state_dict(), tmp_path / 'model.safetensors')
    config = dict(architecture='vit_tiny_patch16_224', num_classes=0, model_args=SMALL,
                  pretrained_cfg=dict(mean=[.1, .2, .3], std=[.4, .5, .6]))
    (tmp_path / 'config.json').write_text(json.dumps(config))
    teacher = milan_mm.TimmTargetGenerator(pretrained=str(tmp_path))
    assert teacher.tower.mean == (.1, .2, .3) and teacher.tower.std == (.4, .5, .6)
    with torch.no_grad():
        assert torch.allclose(teacher.generate(images).features[:, 0], vit(images), atol=1e-5)


HF = dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=8,
          attn_implementation='eager')


@pytest.mark.parametrize('kind, args', [
    ('ViT', dict(intermediate_size=128)),
    ('Dinov2', dict(mlp_ratio=2)),
    ('Dinov2', dict(mlp_ratio=2, use_swiglu_ffn=True)),
    ('Dinov2WithRegisters', dict(mlp_ratio=2, num_register_tokens=4)),
    ('Dinov2WithRegisters', dict(mlp_ratio=4, num_register_tokens=3, use_swiglu_ffn=True)),
])
def test_hugging_face_folders(kind, args, tmp_path, images):
    transformers = pytest.importorskip('transformers', exc_type=ImportError)
    torch.manual_seed(0)
    model = getattr(transformers, f'{kind}Model')(
        getattr(transformers, f'{kind}Config')(**HF, **args)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * .1)
        out = model(images, output_attentions=True)
    model.save_pretrained(tmp_path)
    registers = args.get('num_register_tokens', 0)
    row = out.attentions[-1].mean(1)[:, 0]
    tokens = torch.cat([out[0][:, :1], out[0][:, 1 + registers:]], dim=1)
    kinds = [milan_mm.EncoderTargetGenerator(str(tmp_path), 'student')]
    if kind != 'ViT':
        kinds.append(milan_mm.TimmTargetGenerator(pretrained=str(tmp_path), normalize='student'))
    for teacher in kinds:
        target = teacher(images)
        assert torch.allclose(target.features, tokens, atol=1e-5)
        assert torch.allclose(target.importance, row[:, 1 + registers:], atol=1e-6)
        assert torch.allclose(torch.tensor(teacher.tower.mean), torch.tensor([.485, .456, .406]),
                              atol=1e-4)
    teacher.match_student((6, 4), None, None)
    assert teacher(torch.randn(1, 3, 48, 32)).features.shape == (1, 25, 64)


def test_timm_refusals(tmp_path, images):
    make = milan_mm.TimmTargetGenerator
    vit = timm_vit('vit_tiny_patch16_224')
    torch.save({k: v for k, v in vit.state_dict().items() if k != 'norm.bias'},
               tmp_path / 'cut.pth')
    for arguments, message in [
        (dict(), 'needs model'),
        (dict(model='vit_bose_patch16_224'), 'near to it'),
        (dict(model='vit_tiny_patch16_224.augreg_in21k', model_args=SMALL), "='augreg_in21k'"),
        (dict(model='resnet18'), 'a plain ViT or EVA'),
        (dict(model='vit_tiny_patch16_224', pretrained='dino'), "no weights 'dino'"),
        (dict(model='vit_tiny_patch16_224', pretrained='./none.pth'), 'neither a file'),
        (dict(model='vit_tiny_patch16_224', model_args=dict(eyes=2)), 'cannot build'),
        (dict(model='vit_tiny_patch16_224', model_args=dict(SMALL, depth=1)), 'two or more'),
        (dict(model='vit_tiny_patch16_224', model_args=dict(SMALL, global_pool='max')), 'pools'),
        (dict(model='vit_tiny_patch16_224', pretrained=str(tmp_path / 'cut.pth'),
              model_args=SMALL), r'missing 1 \(norm.bias\)'),
        (dict(pretrained=str(tmp_path)), 'not a folder of a ViT'),
        (dict(model='vit_tiny_patch16_224', amp='int8'), 'amp'),
    ]:
        with pytest.raises(MilanError, match=message):
            make(**arguments)


def test_two_teachers_at_once(run, teacher_folder, images):
    """Against each teacher alone; the cosine of the whole is a weighted mean of the cosines."""
    parts = [dict(type='milan_mm.CLIPTargetGenerator', pretrained=str(teacher_folder)),
             dict(type='milan_mm.EncoderTargetGenerator', checkpoint=str(run[0]))]
    one, two = (MODELS.build(part) for part in parts)
    both = milan_mm.ConcatTargetGenerator(parts, [1, 2])
    for teacher in (one, two, both):
        teacher.match_student((4, 4), *IMAGENET)
    outputs, target = [one(images), two(images)], both(images)
    assert both.dim == one.dim + two.dim == target.features.shape[2]
    guesses = [torch.randn_like(out.features) for out in outputs]
    cosines = [F.cosine_similarity(g, out.features, dim=-1) for g, out in zip(guesses, outputs)]
    whole = torch.cat([w * g / g.norm(dim=-1, keepdim=True) for w, g in zip((1, 2), guesses)], -1)
    assert torch.allclose(F.cosine_similarity(whole, target.features, dim=-1),
                          (cosines[0] + 4 * cosines[1]) / 5, atol=1e-5)
    assert torch.allclose(target.features[..., one.dim:].norm(dim=-1), torch.tensor(2.), atol=1e-5)
    assert torch.equal(target.importance, outputs[0].importance)
    both = milan_mm.ConcatTargetGenerator([one, two], [1, 2], importance='weighted')
    shares = [out.importance / out.importance.sum(1, keepdim=True) for out in outputs]
    assert torch.allclose(both(images).importance, (shares[0] + 4 * shares[1]) / 5, atol=1e-6)


def test_two_teachers_in_a_step(teacher_folder, images):
    clip = dict(type='milan_mm.CLIPTargetGenerator', pretrained=str(teacher_folder))
    pixels = dict(type='milan_mm.PixelTargetGenerator', patch_size=8)
    model = MODELS.build(milan_config('', target_generator=dict(
        type='milan_mm.ConcatTargetGenerator', generators=[clip, clip])))
    assert model.neck.decoder_pred.out_features == 96 and 0 < model.loss(images)['loss'] < 4
    mixed = milan_mm.ConcatTargetGenerator([clip, pixels])
    with pytest.raises(MilanError, match='numbers of tokens'):
        mixed(images)
    assert not milan_mm.ConcatTargetGenerator([pixels, clip]).measures_importance
    for arguments, message in [(dict(generators=[]), 'one generator'),
                               (dict(generators=[pixels], weights=[1, 1]), '1 positive'),
                               (dict(generators=[pixels], weights=[0]), '1 positive'),
                               (dict(generators=[pixels], importance='mean'), 'importance')]:
        with pytest.raises(MilanError, match=message):
            milan_mm.ConcatTargetGenerator(**arguments)


def test_ema_target_is_the_mean_of_the_last_blocks(run, images):
    vit = run[1]
    teacher = milan_mm.EMATargetGenerator(TINY_VIT, levels=2)
    with pytest.raises(MilanError, match='EMATeacherHook'):
        teacher(images)
    teacher.follow(vit)
    outputs = []
    hooks = [layer.register_forward_hook(lambda *args: outputs.append(args[2]))
             for layer in vit.layers]
    with torch.no_grad():
        vit(images)
    for hook in hooks:
        hook.remove()
    normed = [(x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5)**.5
              for x in outputs]
    target = teacher(images)
    assert torch.allclose(target.features, sum(normed) / 2, atol=1e-5)
    want = milan_mm.EncoderTargetGenerator(str(run[0]), 'student')(images)
    assert torch.allclose(target.importance, want.importance, atol=1e-6)
    assert target.features.shape[2] == teacher.dim
    for arguments, message in [(dict(momentum=1.5), 'from 0 to 1'), (dict(levels=3), '1 to 2')]:
        with pytest.raises(MilanError, match=message):
            milan_mm.EMATargetGenerator(TINY_VIT, **arguments)
    with pytest.raises(MilanError, match='same arch'):
        milan_mm.EMATargetGenerator('vit-s').follow(vit)


def ema_run(folder, work, epochs, resume=None, watch=None, **teacher):
    cfg = Config.fromfile(ROOT / 'configs/quickstart/milan.py')
    generator = dict(type='milan_mm.EMATargetGenerator', arch=TINY_VIT, levels=2, **teacher)
    cfg.model = dict(milan_config('', target_generator=generator), data_preprocessor=PIXELS)
    cfg.train_dataloader.update(batch_size=12, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.data_root = str(folder)
    cfg.train_dataloader.dataset.pipeline[1].size = 32
    cfg.optim_wrapper.accumulative_counts = 2
    cfg.param_scheduler = None  # so that runs of other lengths take the same steps
    cfg.train_cfg.max_epochs = epochs
    cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=-1)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='milan_mm.EMATeacherHook')]
    cfg.update(work_dir=str(work), visualizer=None, experiment_name=str(work).replace('/', ' '),
               load_from=resume and str(resume), resume=resume is not None)
    runner = Runner.from_cfg(cfg)
    if watch is not None:
        runner.register_hook(watch)
    runner.train()
    return runner


def test_ema_follows_is_saved_and_resumed(image_folder, tmp_path):
    """4 batches an epoch, 2 of them an update: the average by hand, then through a resumed run."""
    students = []

    class Watch(Hook):

        def after_train_iter(self, runner, *args, **kwargs):
            students.append(runner.model.backbone.layers[0].attn.qkv.weight.detach().clone())

    runner = ema_run(image_folder, tmp_path / 'one', 2, watch=Watch(), momentum=.5,
                     end_momentum=.9)
    teacher = runner.model.target_generator
    # The student before the first update is what it was after the first batch of two.
    mean = students[0]
    for i in (1, 3, 5, 7):
        momentum = .5 + .4 * (i + 1) / 8
        mean = momentum * mean + (1 - momentum) * students[i]
    assert not torch.equal(students[0], students[1]) and torch.equal(students[1], students[2])
    weight = 'layers.0.attn.qkv.weight'
    assert torch.allclose(teacher.average.state_dict()[weight], mean, atol=1e-6)
    saved = read_checkpoint(tmp_path / 'one/epoch_2.pth')
    assert torch.equal(saved['ema_teacher'][0][weight], teacher.average.state_dict()[weight])
    assert not any('average' in key for key in saved['state_dict'])
    resumed = ema_run(image_folder, tmp_path / 'two', 2, tmp_path / 'one/epoch_1.pth',
                      momentum=.5, end_momentum=.9)
    for key, value in resumed.model.target_generator.average.state_dict().items():
        assert torch.allclose(value, saved['ema_teacher'][0][key], atol=1e-5), key
    milan_mm.EncoderTargetGenerator(str(tmp_path / 'two/epoch_2.pth'))  # read as any other run
    del saved['ema_teacher']
    torch.save(saved, tmp_path / 'without.pth')
    with pytest.raises(MilanError, match='keeps no average'):
        ema_run(image_folder, tmp_path / 'three', 3, tmp_path / 'without.pth')


def compiled_teachers(run):
    yield dict(type='milan_mm.EMATargetGenerator', arch=TINY_VIT, levels=2)
    yield dict(type='milan_mm.ConcatTargetGenerator', generators=[
        dict(type='milan_mm.EncoderTargetGenerator', checkpoint=str(run[0])),
        dict(type='milan_mm.TimmTargetGenerator', model='vit_small_patch16_dinov3',
             model_args=SMALL)])


def test_a_step_is_one_graph_and_may_be_bfloat16(run, images):
    for generator in compiled_teachers(run):
        model = MODELS.build(
            milan_config('', target_generator=generator, data_preprocessor=PIXELS))
        if isinstance(model.target_generator, milan_mm.EMATargetGenerator):
            model.target_generator.follow(model.backbone)
        keys = torch.arange(2)
        plain = model.loss(images, sample_keys=keys)['loss']
        compiled = torch.compile(model.loss, fullgraph=True, backend='eager')
        assert torch.allclose(compiled(images, sample_keys=keys)['loss'], plain, atol=1e-6)
        with torch.autocast('cpu', torch.bfloat16):
            target, short = model.target_generator(images), model.loss(images, sample_keys=keys)
        assert target.importance.dtype == torch.float32
        assert torch.allclose(short['loss'].float(), plain, atol=.05)
