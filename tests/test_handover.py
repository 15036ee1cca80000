# SPDX-License-Identifier: Apache-2.0
"""Weights from and to other libraries: whole, unchanged, or an error that names what is amiss."""
import json
import os
import re

import pytest
import timm
import torch
from helpers_eval import logged
from mmpretrain.models import MAEPretrainDecoder
from safetensors.torch import load_file, save_file
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

import milan_mm
from milan_mm import MaskedVisionTransformer, MilanError
from milan_mm.checkpoints import hf_clip
from milan_mm.checkpoints.convert import convert
from milan_mm.checkpoints.handover import load_encoder
from milan_mm.checkpoints.io import state_of
from milan_mm.checkpoints.vit import read_vit
from milan_mm.positions import sincos_positions

ARCH = dict(embed_dims=64, num_layers=2, num_heads=2, feedforward_channels=96)
META = dict(algorithm='MILAN', encoder=dict(arch=ARCH, img_size=(32, 32), patch_size=8),
            pixel_mean=[120., 110., 100.], pixel_std=[60., 50., 40.])


def encoder(**changes):
    torch.manual_seed(0)
    model = MaskedVisionTransformer(**{**dict(arch=ARCH, img_size=32, patch_size=8), **changes})
    model.init_weights()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name != 'pos_embed':
                p.add_(torch.randn_like(p) * .02)
    model.eval()  # mmpretrain's gives nothing back
    return model


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def source(tmp_path):
    """A training checkpoint of MILAN with decoder, and something beside."""
    neck = milan_mm.PromptingDecoder(64, (4, 4), 24, decoder_embed_dim=32, decoder_depth=1,
                                     decoder_num_heads=4)
    state = {**{f'backbone.{k}': v for k, v in encoder().state_dict().items()},
             **{f'neck.{k}': v for k, v in neck.state_dict().items()}}
    torch.save(dict(state_dict=state, meta=dict(milan_mm=META), optimizer={}),
               tmp_path / 'epoch_1.pth')
    return tmp_path / 'epoch_1.pth'


def same(a, b):
    return set(a) == set(b) and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize('way', [
    ('authors.pth', ), ('authors.safetensors', ), ('mmpretrain.pth', ), ('timm.pth', ),
    ('timm.safetensors', ), ('hf', ), ('hf', 'timm.pth', 'authors.safetensors', 'mmpretrain.pth')])
def test_round_trips_are_bit_exact(source, tmp_path, way):
    at = source
    for name in way:
        convert(at, tmp_path / name, name.split('.')[0])
        at = tmp_path / name
    convert(at, tmp_path / 'back.pth', 'milan_mm', format=None)
    first, back = (torch.load(p, weights_only=True)['state_dict']
                   for p in (source, tmp_path / 'back.pth'))
    if way[-1].startswith('authors') and len(way) == 1:
        assert same(first, back)  # the decoder too
    assert same({k: v for k, v in first.items() if k.startswith('backbone.')},
                {k: v for k, v in back.items() if k.startswith('backbone.')})


def test_half_precision_stays_half(source, tmp_path):
    checkpoint = torch.load(source, weights_only=True)
    checkpoint['state_dict'] = {k: v.half() for k, v in checkpoint['state_dict'].items()}
    torch.save(checkpoint, source)
    convert(source, tmp_path / 't.safetensors', 'timm')
    assert {v.dtype for v in load_file(tmp_path / 't.safetensors').values()} == {torch.float16}


def test_timm_loads_it_strictly_and_gives_the_same_features(source, tmp_path, images, run_here):
    out = run_here('convert_checkpoint.py', source, tmp_path / 't.pth', '--to', 'timm')
    assert '30 tensors in the naming of timm, from milan_mm' in out
    assert 'left out: neck.* (22)' in out
    vit = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=2, mlp_ratio=1.5, num_classes=0)
    vit.load_state_dict(torch.load(tmp_path / 't.pth', weights_only=True), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(vit.eval().forward_features(images), encoder()(images)[0],
                                   rtol=1e-5, atol=1e-5)


def test_hugging_face_loads_it_and_gives_the_same_features(source, tmp_path, images, run_here):
    run_here('convert_checkpoint.py', source, tmp_path / 'hf', '--to', 'hf')
    vit, info = ViTModel.from_pretrained(tmp_path / 'hf', add_pooling_layer=False,
                                         output_loading_info=True)
    assert not info['missing_keys'] and not info['unexpected_keys']
    with torch.no_grad():
        torch.testing.assert_close(vit.eval()(images).last_hidden_state, encoder()(images)[0],
                                   rtol=1e-5, atol=1e-5)
    pixels = json.loads((tmp_path / 'hf/preprocessor_config.json').read_text())
    assert pixels['image_mean'][0] == pytest.approx(120 / 255)
    assert read_vit(tmp_path / 'hf').spec.pixel_std == pytest.approx((60, 50, 40))


def take_over(path, **changes):
    model = encoder(**changes)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(float('nan'))
    words = load_encoder(model, read_vit(path))
    return model, words


@pytest.mark.parametrize('pool', ['token', 'avg'])
def test_a_timm_vit_becomes_the_student(tmp_path, images, pool):
    vit = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=1, num_classes=5,
        global_pool=pool, fc_norm=False).eval()
    save_file(vit.state_dict(), tmp_path / 't.safetensors')
    arch = dict(ARCH, num_heads=1, feedforward_channels=256)
    model, words = take_over(tmp_path / 't.safetensors', arch=arch)
    assert '30 of 30 encoder tensors (100 %)' in words and 'head.weight' in words
    assert "learned ones and stay as they are" in words and not model.pos_embed.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(model(images)[0], vit.forward_features(images), rtol=1e-5,
                                   atol=1e-5)


def test_hugging_faces_vit_and_dinov2(tmp_path, images):
    sizes = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32,
                 patch_size=8)
    vit = ViTModel(ViTConfig(**sizes, intermediate_size=96, layer_norm_eps=1e-6)).eval()
    vit.save_pretrained(tmp_path / 'vit')
    model, words = take_over(tmp_path / 'vit')
    assert 'pooler.dense' in words
    with torch.no_grad():
        torch.testing.assert_close(model(images)[0], vit(images).last_hidden_state, rtol=1e-5,
                                   atol=1e-5)
    dino = Dinov2Model(Dinov2Config(**sizes, mlp_ratio=2, layerscale_value=.3)).eval()
    dino.save_pretrained(tmp_path / 'dino')
    arch = dict(ARCH, feedforward_channels=128)
    with pytest.raises(MilanError, match='has LayerScale, the encoder has none.*'
                       'backbone.layer_scale_init_value=1.0'):
        take_over(tmp_path / 'dino', arch=arch)
    model, _ = take_over(tmp_path / 'dino', arch=arch, layer_scale_init_value=1.0)
    with torch.no_grad():
        torch.testing.assert_close(model(images)[0], dino(images).last_hidden_state, rtol=1e-5,
                                   atol=1e-5)


def test_what_the_encoder_needs_for_dinov2_with_registers_is_said(tmp_path):
    vit = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=64, depth=1, num_heads=2, num_classes=0, reg_tokens=4,
        no_embed_class=True, init_values=1, qkv_bias=False)
    torch.save(vit.state_dict(), tmp_path / 'reg.pth')
    with pytest.raises(MilanError, match='set model.backbone.layer_scale_init_value=1.0 '
                       'model.backbone.num_registers=4 model.backbone.qkv_bias=False'):
        take_over(tmp_path / 'reg.pth', arch=dict(ARCH, num_layers=1, feedforward_channels=256))
    _, words = take_over(tmp_path / 'reg.pth', arch=dict(ARCH, num_layers=1,
                                                         feedforward_channels=256),
                         layer_scale_init_value=1.0, num_registers=4, qkv_bias=False)
    assert '(100 %)' in words


def test_another_number_of_heads_is_an_error_where_it_is_known(source, tmp_path):
    """Heads have no tensors of their own: any number loads, and computes something else."""
    with pytest.raises(MilanError, match='trained with 2 heads and this encoder has 4'):
        take_over(source, arch=dict(ARCH, num_heads=4))
    convert(source, tmp_path / 't.pth', 'timm')
    with logged() as messages:
        take_over(tmp_path / 't.pth', arch=dict(ARCH, num_heads=4))
    assert any('does not say how many heads' in m for m in messages)


QUICK = dict(act_cfg=dict(type='mmpretrain.QuickGELU'))


def test_clips_own_image_tower(tiny_clip, teacher_folder, tmp_path):
    arch = dict(embed_dims=64, num_layers=3, num_heads=2, feedforward_channels=256)
    save_file(tiny_clip.state_dict(), tmp_path / 'clip.safetensors')
    # Heads are no part of the weights: 64 / 64 are assumed, where this tower has 2.
    with pytest.raises(MilanError, match='has a norm before the blocks.*pre_norm=True'):
        take_over(tmp_path / 'clip.safetensors', arch=arch)
    with logged() as messages:
        model, words = take_over(tmp_path / 'clip.safetensors', arch=arch, pre_norm=True,
                                 layer_cfgs=QUICK, norm_cfg=dict(type='LN', eps=1e-5))
    assert any('does not say which GELU' in m for m in messages)
    assert 'token_embedding.weight' in words and 'transformer.* (12)' in words and 'proj' in words
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            model(images)[0][:, 0] @ tiny_clip.visual.proj, tiny_clip.visual(images), rtol=1e-4,
            atol=1e-5)


def test_wrong_gelu_is_an_error(tmp_path):
    sizes = dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=32,
                 patch_size=8, intermediate_size=96, hidden_act='quick_gelu')
    ViTModel(ViTConfig(**sizes)).save_pretrained(tmp_path / 'quick')
    arch = dict(ARCH, num_layers=1)
    with pytest.raises(MilanError, match='trained with QuickGELU and this encoder uses GELU'):
        take_over(tmp_path / 'quick', arch=arch)
    take_over(tmp_path / 'quick', arch=arch, layer_cfgs=QUICK)


def spoil(source, change):
    checkpoint = torch.load(source, weights_only=True)
    change(checkpoint['state_dict'])
    torch.save(checkpoint, source)


@pytest.mark.parametrize('change, words', [
    (lambda s: s.pop('backbone.layers.1.attn.qkv.bias'), 'missing 1 .layers.1.attn.qkv.bias'),
    (lambda s: s.update({'backbone.oddity': torch.ones(1)}), 'left over 1 .oddity'),
    (lambda s: s.update({'backbone.ln1.bias': torch.ones(3)}), r'ln1.bias is .3,.* be .64,'),
    (lambda s: s.update({'backbone.register_tokens': torch.ones(3)}), r'register_tokens is .3,'),
    (lambda s: s.update({'backbone.layers.0.attn.rel_pos_h': torch.ones(3)}), 'relative positions'),
    (lambda s: [s.pop(k) for k in list(s) if 'backbone.layers.0.' in k], r'missing.*layers\.0\.'),
])
@pytest.mark.parametrize('to', ['timm', 'authors', 'hf', 'mmpretrain', 'milan_mm'])
def test_spoiled_sources(source, tmp_path, change, words, to):
    spoil(source, change)
    target = tmp_path / ('new' if to == 'hf' else 'new.pth')
    with pytest.raises(MilanError, match=words):
        convert(source, target, to)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['epoch_1.pth']


@pytest.mark.parametrize('to, missing, misshapen', [
    ('timm', 'blocks.1.attn.qkv.weight', 'norm.bias'),
    ('authors', 'blocks.1.mlp.fc2.bias', 'patch_embed.proj.bias'),
    ('timm', 'patch_embed.proj.weight', 'blocks.0.norm1.weight')])
def test_a_tensor_is_called_as_the_file_calls_it(source, tmp_path, to, missing, misshapen):
    convert(source, tmp_path / 'whole.pth', to)
    state = state_of(torch.load(tmp_path / 'whole.pth', weights_only=True))
    for name, changed in ((missing, {k: v for k, v in state.items() if k != missing}),
                          (misshapen, {**state, misshapen: torch.ones(3)})):
        torch.save(changed, tmp_path / 'cut.pth')
        with pytest.raises(MilanError, match=rf'[ (]{re.escape(name)}\b'):
            read_vit(tmp_path / 'cut.pth')
    with pytest.raises(MilanError, match=r'missing 12 \(blocks\.2\.norm1\.weight\)'):
        take_over(tmp_path / 'whole.pth', arch=dict(ARCH, num_layers=3))


class Poison:

    def __reduce__(self):
        return os.system, ('touch poisoned', )


def test_poison_ends_in_one_line(tmp_path, monkeypatch, run_here):
    import pickle
    (tmp_path / 'plain.pth').write_bytes(pickle.dumps(dict(state_dict=Poison())))
    torch.save(dict(state_dict=Poison()), tmp_path / 'zip.pth')
    (tmp_path / 'hf').mkdir()
    (tmp_path / 'hf/config.json').write_text('{}')
    torch.save(dict(a=Poison()), tmp_path / 'hf/pytorch_model.bin')
    for name in ('plain.pth', 'zip.pth', 'hf'):
        with pytest.raises(MilanError, match='refused|not a readable'):
            convert(tmp_path / name, tmp_path / 'out.pth', 'timm')
    out = run_here('convert_checkpoint.py', tmp_path / 'zip.pth', tmp_path / 'out.pth', '--to',
                   'timm', code=2)
    assert 'error: ' in out and 'Traceback' not in out and '--trust-checkpoint' in out
    assert not (tmp_path / 'out.pth').exists() and not os.path.exists('poisoned')


def test_what_a_target_cannot_hold_is_named(source, tmp_path):
    torch.save(dict(state_dict={f'backbone.{k}': v for k, v in encoder(
        layer_scale_init_value=.5).state_dict().items()}), tmp_path / 'scaled.pth')
    with pytest.raises(MilanError, match='ViTModel has no place for layers.0.attn.gamma1'):
        convert(tmp_path / 'scaled.pth', tmp_path / 'hf', 'hf')
    convert(tmp_path / 'scaled.pth', tmp_path / 'scaled_timm.pth', 'timm')
    vit = timm.models.VisionTransformer(img_size=32, patch_size=8, embed_dim=64, depth=2,
                                        num_heads=2, mlp_ratio=1.5, num_classes=0, init_values=1)
    vit.load_state_dict(torch.load(tmp_path / 'scaled_timm.pth', weights_only=True), strict=True)
    convert(tmp_path / 'scaled_timm.pth', tmp_path / 'back.pth', 'milan_mm')
    first, back = (torch.load(tmp_path / name, weights_only=True)['state_dict']
                   for name in ('scaled.pth', 'back.pth'))
    assert same(first, back)
    for target, to, words in (('x.txt', 'timm', 'must end in'), ('x.pth', 'hf', 'is a folder'),
                              ('epoch_1.pth', 'timm', 'is the source itself')):
        with pytest.raises(MilanError, match=words):
            convert(source, tmp_path / target, to)


def test_mmpretrains_mae_keeps_its_decoder(tmp_path):
    neck = MAEPretrainDecoder(16, 8, embed_dim=64, decoder_embed_dim=32, decoder_depth=1,
                              decoder_num_heads=4)
    teacher = {'target_generator.clip_model.logit_scale': torch.ones(())}
    state = {**{f'backbone.{k}': v for k, v in encoder().state_dict().items()},
             **{f'neck.{k}': v for k, v in neck.state_dict().items()}, **teacher}
    torch.save(dict(state_dict=state), tmp_path / 'mae.pth')
    done = convert(tmp_path / 'mae.pth', tmp_path / 'authors.pth', 'authors')
    assert done.format == 'mmpretrain' and done.dropped == list(teacher)
    published = torch.load(tmp_path / 'authors.pth', weights_only=True)['model']
    assert torch.equal(published['decoder_blocks.0.norm1.weight'],
                       neck.state_dict()['decoder_blocks.0.ln1.weight'])
    convert(tmp_path / 'authors.pth', tmp_path / 'back.pth', 'milan_mm')
    back = torch.load(tmp_path / 'back.pth', weights_only=True)['state_dict']
    assert same(back, {k: v for k, v in state.items() if k not in teacher})


def backbone(checkpoint, **changes):
    config = dict(type='milan_mm.MaskedVisionTransformer', arch=ARCH, img_size=32, patch_size=8,
                  init_cfg=dict(type='milan_mm.PretrainedViT', checkpoint=str(checkpoint)))
    from mmpretrain.registry import MODELS
    model = MODELS.build({**config, **changes})
    with logged() as messages:
        model.init_weights()
    return model, next(m for m in messages if 'encoder tensors' in m)


def test_init_cfg_of_a_classifier(source):
    model, words = backbone(source, out_type='avg_featmap', final_norm=False, positions='learned')
    assert '28 of 28 encoder tensors (100 %)' in words
    assert 'new here: ln2.weight, ln2.bias' in words
    assert 'not used: ln1.weight, ln1.bias' in words and 'neck.* (22)' in words
    want = encoder().state_dict()
    assert all(torch.equal(v, want[k]) for k, v in model.state_dict().items() if 'ln2' not in k)
    assert model.pos_embed.requires_grad


@pytest.mark.parametrize('grid', [(4, 4), (6, 6), (3, 7)])
def test_positions_follow_the_grid(source, grid):
    size = tuple(8 * side for side in grid)
    model, words = backbone(source, img_size=size, positions='learned', out_type='featmap')
    rows = sincos_positions(64, (4, 4))[:, 1:].reshape(1, 4, 4, 64).permute(0, 3, 1, 2)
    want = torch.nn.functional.interpolate(rows, grid, mode='bicubic').flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.pos_embed[:, 1:], want if grid != (4, 4) else
                               sincos_positions(64, grid)[:, 1:])
    assert ('resized from 4 x 4' in words) == (grid != (4, 4))


def test_pretraining_keeps_sine_cosine_of_its_own_grid(source):
    model, words = backbone(source, img_size=(48, 64))
    torch.testing.assert_close(model.pos_embed, sincos_positions(64, (6, 8)))
    assert 'resized' not in words


def test_positions_of_a_grid_that_is_not_square(source, tmp_path):
    spoil(source, lambda s: s.update({'backbone.pos_embed': torch.randn(1, 9, 64)}))
    checkpoint = torch.load(source, weights_only=True)
    checkpoint['meta']['milan_mm']['encoder']['img_size'] = (16, 32)
    torch.save(checkpoint, source)
    model, words = backbone(source, img_size=(16, 32), positions='learned')
    assert torch.equal(model.pos_embed, checkpoint['state_dict']['backbone.pos_embed'])
    _, words = backbone(source, img_size=(32, 64), positions='learned')
    assert 'resized from 2 x 4 to 4 x 8' in words


def test_init_cfg_is_strict(source):
    for changes in (dict(arch=dict(ARCH, num_layers=3)), dict(patch_size=4),
                    dict(arch=dict(ARCH, embed_dims=32))):
        with pytest.raises(MilanError, match='does not fit the encoder: .*another architecture'):
            backbone(source, **changes)


def test_no_checkpoint_is_said():
    model = MaskedVisionTransformer(
        arch=ARCH, img_size=32, patch_size=8,
        init_cfg=dict(type='milan_mm.PretrainedViT', checkpoint=None))
    with logged() as messages:
        model.init_weights()
    assert any('starts from random weights' in m for m in messages)


def test_strange_backbones_are_refused(source):
    """mmengine would initialise their blocks after the loading, without a word."""
    from mmpretrain.models import VisionTransformer
    model = VisionTransformer(
        arch=dict(ARCH), img_size=32, patch_size=8,
        init_cfg=dict(type='milan_mm.PretrainedViT', checkpoint=str(source)))
    with pytest.raises(MilanError, match='serves the backbones of this package'):
        model.init_weights()


@pytest.mark.parametrize('value, words', [
    (float('nan'), 'holds NaN or infinity'), (float('inf'), 'holds NaN or infinity'),
    (torch.int64, 'is of torch.int64'), (torch.complex64, 'is of torch.complex64'),
    (torch.bool, 'is of torch.bool')])
def test_weights_that_are_no_finite_floats_are_refused_by_name(value, words, source, tmp_path):
    key = 'layers.1.attn.qkv.weight'
    checkpoint = torch.load(source, weights_only=True)
    tensor = checkpoint['state_dict'][f'backbone.{key}']
    if isinstance(value, float):
        tensor[5, 7] = value
    else:
        checkpoint['state_dict'][f'backbone.{key}'] = tensor.to(value)
    torch.save(checkpoint, source)
    for use in (lambda: convert(source, tmp_path / 'out.pth', 'timm'),
                lambda: load_encoder(encoder(), read_vit(source)),
                lambda: milan_mm.get_model(source),
                lambda: milan_mm.EncoderTargetGenerator(source)):
        with pytest.raises(MilanError, match=f'{key} {words}'):
            use()
    assert not (tmp_path / 'out.pth').exists()


def test_half_precision_and_float64_are_numbers_too(source):
    checkpoint = torch.load(source, weights_only=True)
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        torch.save({key: value.to(kind) for key, value in checkpoint['state_dict'].items()}, source)
        load_encoder(encoder(), read_vit(source))


@pytest.mark.parametrize('value', [float('nan'), torch.complex64])
def test_teachers_must_be_finite_floats(value, teacher_folder, tmp_path):
    state = load_file(teacher_folder / 'open_clip_model.safetensors')
    key = 'visual.transformer.resblocks.1.mlp.c_fc.weight'
    state[key] = state[key] * value if isinstance(value, float) else state[key].to(value)
    torch.save(state, tmp_path / 'clip.pt')
    vit = timm.create_model('vit_tiny_patch16_224', depth=2, num_classes=0).state_dict()
    vit['norm.weight'] = (vit['norm.weight'] * value if isinstance(value, float)
                          else vit['norm.weight'].to(value))
    torch.save(vit, tmp_path / 'vit.pt')
    words = 'NaN' if isinstance(value, float) else 'is of torch.complex64'
    with pytest.raises(MilanError, match=f'mlp.c_fc.weight .*{words}'):
        milan_mm.CLIPTargetGenerator(None, str(tmp_path / 'clip.pt'), True)
    with pytest.raises(MilanError, match=f'norm.weight .*{words}'):
        milan_mm.TimmTargetGenerator('vit_tiny_patch16_224', str(tmp_path / 'vit.pt'),
                                     model_args=dict(depth=2))


def test_a_folder_of_timm_names_no_other_file(tmp_path):
    """timm would read what ``checkpoint_path`` names, by its own loading."""
    (tmp_path / 'config.json').write_text(json.dumps(dict(
        architecture='vit_tiny_patch16_224', model_args=dict(checkpoint_path='other.pth'))))
    save_file(dict(a=torch.ones(1)), tmp_path / 'model.safetensors')
    with pytest.raises(MilanError, match='checkpoint_path is no argument'):
        milan_mm.TimmTargetGenerator(None, str(tmp_path))


@pytest.mark.parametrize('key', ['vision_model.encoder.layers.1.self_attn.k_proj.weight',
                                 'vision_model.pre_layrnorm.bias',
                                 'vision_model.embeddings.class_embedding'])
def test_a_clip_of_hugging_face_is_named_in_its_own_names(key):
    blocks = [f'encoder.layers.{i}.{part}' for i in range(2) for part in hf_clip._OF_A_BLOCK]
    state = {f'vision_model.{name}': torch.ones(2) for name in (*hf_clip._NEEDED, *blocks)}
    assert len(hf_clip.rename_hf_clip(state, 'a file')) == 7 + 2 * 12
    del state[key]
    with pytest.raises(MilanError, match=re.escape(f'a file does not hold a whole image tower: '
                                                   f'missing 1 ({key})')):
        hf_clip.rename_hf_clip(state, 'a file')
