# SPDX-License-Identifier: Apache-2.0
"""ViTs of others, in whatever they come wrapped: the same features as in their own library."""
import argparse
import functools
import json
import re

import numpy as np
import pytest
import timm
import torch
import transformers
from conftest import milan_config
from helpers_eval import logged
from safetensors.torch import save_file
from torchvision.models import VisionTransformer as TorchvisionViT

import milan_mm
from milan_mm import MilanError
from milan_mm.checkpoints.vit import read_vit
from milan_mm.inference.checkpoint import Checkpoint
from milan_mm.registry import MODELS

SIZES = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=1, image_size=32,
             patch_size=8, intermediate_size=96)


def timm_vit(**changes):
    torch.manual_seed(0)
    vit = timm.models.VisionTransformer(**{**dict(
        img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=1, mlp_ratio=1.5,
        num_classes=0), **changes})
    return shaken(vit)


def shaken(model):
    """Without zeros and ones of the start, which would hide what is left out."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * .05)
    return model.eval()


def dinov3(bias=False):
    from timm.models.eva import Eva
    torch.manual_seed(0)
    return shaken(Eva(
        img_size=32, patch_size=8, embed_dim=128, depth=2, num_heads=2, mlp_ratio=2, num_classes=0,
        qkv_bias=bias, init_values=.5, rope_type='dinov3', rope_temperature=100,
        use_rot_pos_emb=True, use_abs_pos_emb=False, rope_rotate_half=True, num_reg_tokens=4,
        use_fc_norm=False, dynamic_img_size=True,
        norm_layer=functools.partial(timm.layers.LayerNorm, eps=1e-5)))


@torch.no_grad()
def features(path, images, **kwargs):
    """CLS and patches, and the mean of the patches."""
    out = milan_mm.get_model(path, **kwargs)(images)
    return torch.cat([out.cls[:, None], out.patches], dim=1)


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('options', [
    dict(qkv_bias=False), dict(no_embed_class=True), dict(class_token=False, global_pool='avg'),
    dict(reg_tokens=4, no_embed_class=True, init_values=.5), dict(in_chans=5)],
    ids=['no qkv bias', 'no_embed_class', 'no CLS', 'DINOv2 with registers', 'five channels'])
def test_timms_variants(options, images, tmp_path):
    vit = timm_vit(**options)
    torch.save(vit.state_dict(), tmp_path / 'vit.pth')
    if 'in_chans' in options:
        images = torch.randn(2, 5, 32, 32)
    with torch.no_grad():
        want = vit.forward_features(images)
    patches = want[:, -16:]
    if 'class_token' in options:
        want = torch.cat([patches.mean(1, keepdim=True), patches], dim=1)
    close(features(tmp_path / 'vit.pth', images), torch.cat([want[:, :1], patches], dim=1))


@pytest.mark.parametrize('bias', [False, True])
def test_dinov3_of_timm_on_any_grid(bias, tmp_path):
    vit = dinov3(bias)
    save_file(vit.state_dict(), tmp_path / 'vit.safetensors')
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        want = vit.forward_features(images)
    close(features(tmp_path / 'vit.safetensors', images), want[:, [0, *range(5, 29)]])


def test_hugging_faces_dinov2_and_dinov3_with_registers(images, tmp_path):
    models = [(transformers.Dinov2WithRegistersModel, transformers.Dinov2WithRegistersConfig(
        **{k: v for k, v in SIZES.items() if k != 'intermediate_size'}, mlp_ratio=2))]
    if hasattr(transformers, 'DINOv3ViTModel'):  # from 4.56 on
        models.append((transformers.DINOv3ViTModel, transformers.DINOv3ViTConfig(
            **SIZES, num_register_tokens=4)))
    for cls, config in models:
        vit = shaken(cls(config))
        vit.save_pretrained(tmp_path / cls.__name__, max_shard_size='100KB')
        assert (tmp_path / cls.__name__ / 'model.safetensors.index.json').is_file()
        with torch.no_grad():
            want = vit(images).last_hidden_state
        close(features(tmp_path / cls.__name__, images), want[:, [0, *range(5, 21)]])


def test_torchvision_and_lightlys_mae_on_it(images, tmp_path):
    torch.manual_seed(0)
    vit = shaken(TorchvisionViT(32, 8, 2, 1, 64, 96))
    state = {f'model.backbone.{k}': v for k, v in vit.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'lightly.ckpt')
    tokens = vit._process_input(images)
    with torch.no_grad():
        want = vit.encoder(torch.cat([vit.class_token.expand(2, -1, -1), tokens], dim=1))
    close(features(tmp_path / 'lightly.ckpt', images), want)


def test_mmsegs_vit(images, tmp_path):
    vit = timm_vit()
    names = (('blocks.', 'layers.'), ('norm1', 'ln1'), ('norm2', 'ln2'),
             ('attn.qkv.weight', 'attn.attn.in_proj_weight'),
             ('attn.qkv.bias', 'attn.attn.in_proj_bias'), ('attn.proj', 'attn.attn.out_proj'),
             ('mlp.fc1', 'ffn.layers.0.0'), ('mlp.fc2', 'ffn.layers.1'),
             ('patch_embed.proj.', 'patch_embed.projection.'), ('norm.', 'ln1.'))
    state = {'decode_head.conv.weight': torch.ones(1)}
    for key, value in vit.state_dict().items():
        for theirs, ours in names:
            key = key.replace(theirs, ours)
        state[f'backbone.{key}'] = value
    torch.save(dict(state_dict=state), tmp_path / 'mmseg.pth')
    with torch.no_grad():
        close(features(tmp_path / 'mmseg.pth', images), vit.forward_features(images))


def as_jax(vit, big_vision):
    state, heads = vit.state_dict(), vit.blocks[0].attn.num_heads
    norm, attn, mlp = (1, 0, 0) if big_vision else (2, 1, 3)
    arrays = {'cls': state['cls_token'], 'embedding/bias': state['patch_embed.proj.bias'],
              'embedding/kernel': state['patch_embed.proj.weight'].permute(2, 3, 1, 0),
              'Transformer/posembed_input/pos_embedding': state['pos_embed'],
              'Transformer/encoder_norm/scale': state['norm.weight'],
              'Transformer/encoder_norm/bias': state['norm.bias'], 'head/bias': torch.ones(3)}
    for i in range(len(vit.blocks)):
        block = f'Transformer/encoderblock_{i}'
        for ours, theirs in (('norm1', 'LayerNorm_0'), ('norm2', f'LayerNorm_{norm}')):
            for kind, name in (('weight', 'scale'), ('bias', 'bias')):
                arrays[f'{block}/{theirs}/{name}'] = state[f'blocks.{i}.{ours}.{kind}']
        for j in (0, 1):
            dense = f'{block}/MlpBlock_{mlp}/Dense_{j}'
            arrays[f'{dense}/kernel'] = state[f'blocks.{i}.mlp.fc{j + 1}.weight'].T
            arrays[f'{dense}/bias'] = state[f'blocks.{i}.mlp.fc{j + 1}.bias']
        attention = f'{block}/MultiHeadDotProductAttention_{attn}'
        for part, weight, bias in zip(('query', 'key', 'value'),
                                      state[f'blocks.{i}.attn.qkv.weight'].chunk(3),
                                      state[f'blocks.{i}.attn.qkv.bias'].chunk(3)):
            arrays[f'{attention}/{part}/kernel'] = weight.T.unflatten(1, (heads, -1))
            arrays[f'{attention}/{part}/bias'] = bias.unflatten(0, (heads, -1))
        out = state[f'blocks.{i}.attn.proj.weight']
        arrays[f'{attention}/out/kernel'] = out.T.unflatten(0, (heads, -1))
        arrays[f'{attention}/out/bias'] = state[f'blocks.{i}.attn.proj.bias']
    prefix = 'params/img/' if big_vision else ''
    return {prefix + k: v.contiguous().numpy() for k, v in arrays.items()}


@pytest.mark.parametrize('big_vision', [False, True])
def test_jax(big_vision, images, tmp_path):
    vit = timm_vit(num_heads=4)  # which a file of torch would not tell
    np.savez(tmp_path / 'vit.npz', **as_jax(vit, big_vision))
    with torch.no_grad():
        close(features(tmp_path / 'vit.npz', images), vit.forward_features(images))
    assert read_vit(tmp_path / 'vit.npz').spec.pixel_mean == (127.5, 127.5, 127.5)
    assert Checkpoint(tmp_path / 'vit.npz').vit().spec == read_vit(tmp_path / 'vit.npz').spec


def under(prefix, state):
    return {prefix + key: value for key, value in state.items()}


CONTAINERS = {
    '_orig_mod.': lambda s: under('_orig_mod.', s),
    'module._orig_mod.': lambda s: dict(model=under('module._orig_mod.', s)),
    'Lightning': lambda s: dict(state_dict=under('model.', s), epoch=3),
    'lightly': lambda s: dict(state_dict={**under('backbone.vit.', s),
                                          'decoder.x': torch.ones(1)}),
    'DeepSpeed': lambda s: dict(module=s, ds_version='0.1', param_shapes=[{'a': torch.Size([1])}]),
    'model_state_dict': lambda s: dict(model_state_dict=s, optimizer_state_dict=dict(state={})),
    'params': lambda s: dict(params=s),
    'one level down': lambda s: dict(checkpoint=dict(model=s)),
    'chunks of blocks': lambda s: dict(teacher={
        k.replace('blocks.0.', 'backbone.blocks.0.0.').replace('blocks.1.', 'backbone.blocks.1.1.')
        if 'blocks' in k else f'backbone.{k}': v for k, v in s.items()}),
    'argparse': lambda s: dict(model=s, args=argparse.Namespace(lr=.1, epochs=3)),
}


@pytest.mark.parametrize('container', CONTAINERS)
def test_containers_are_taken_off(container, tmp_path):
    state = timm_vit().state_dict()
    torch.save(CONTAINERS[container](state), tmp_path / 'wrapped.pth')
    vit = read_vit(tmp_path / 'wrapped.pth')
    torch.save(state, tmp_path / 'bare.pth')
    bare = read_vit(tmp_path / 'bare.pth')
    assert vit.encoder.keys() == bare.encoder.keys() and not bare.unwrapped
    assert all(torch.equal(vit.encoder[k], v) for k, v in bare.encoder.items())
    assert ('unwrapped from' in vit.unwrapped) == (container != 'argparse')


@pytest.mark.parametrize('both', [
    lambda raw, mean: dict(student=under('module.backbone.', raw),
                           teacher=under('backbone.', mean)),
    lambda raw, mean: dict(model={**under('student.backbone.', raw),
                                  **under('teacher.backbone.', mean)}),
    lambda raw, mean: dict(state_dict=raw, state_dict_ema=mean),
    lambda raw, mean: dict(model=raw, model_ema=mean)])
def test_averaged_or_raw_weights(both, tmp_path):
    raw = timm_vit().state_dict()
    mean = {key: value + 1 for key, value in raw.items()}
    torch.save(both(raw, mean), tmp_path / 'run.pth')
    for weights, shift, words in ((None, 1, 'the averaged weights.*--weights raw'), ('ema', 1, ''),
                                  ('raw', 0, 'the raw weights.*--weights ema')):
        with logged() as messages:
            model = milan_mm.get_model(tmp_path / 'run.pth', weights=weights)
        torch.testing.assert_close(model.backbone.cls_token, raw['cls_token'] + shift)
        assert any(re.search(words, message) for message in messages)
    torch.save(raw, tmp_path / 'raw.pth')
    with pytest.raises(MilanError, match='no averaged weights.*leave --weights ema out'):
        read_vit(tmp_path / 'raw.pth', weights='ema')


@pytest.mark.parametrize('change, words', [
    (lambda s: s.update({'blocks.0.attn.relative_position_bias_table': torch.ones(3, 1)}),
     'tables of relative positions.*TimmTargetGenerator'),
    (lambda s: s.update({'blocks.0.attn.qkv.weight': torch.ones(0)}), 'zero_to_fp32.py'),
    (lambda s: s.update(under('other.', s)), 'several encoders.*save the one you want'),
    (lambda s: s.update({'dist_token': torch.ones(1, 1, 64)}), 'without distillation')])
def test_what_cannot_be_read_says_what_would_help(change, words, tmp_path):
    state = dict(timm_vit().state_dict())
    change(state)
    torch.save(state, tmp_path / 'vit.pth')
    with pytest.raises(MilanError, match=words):
        read_vit(tmp_path / 'vit.pth')
    (tmp_path / 'shards').mkdir()
    (tmp_path / 'shards/__0_0.distcp').touch()
    with pytest.raises(MilanError, match='dcp_to_torch'):
        read_vit(tmp_path / 'shards')
    (tmp_path / 'shards/config.json').write_text('{}')
    (tmp_path / 'shards/model.safetensors.index.json').write_text(
        json.dumps(dict(weight_map=dict(a='../vit.pth'))))
    with pytest.raises(MilanError, match='not beside it'):
        read_vit(tmp_path / 'shards')


DINOV3 = dict(arch=dict(embed_dims=128, num_layers=2, num_heads=2, feedforward_channels=256),
              img_size=32, patch_size=8, layer_scale_init_value=1.0, qkv_bias=False,
              num_registers=4, rotary=True)


@pytest.mark.parametrize('backbone', [
    DINOV3, dict(with_cls_token=False), dict(qkv_bias=False, in_channels=3)],
    ids=['DINOv3', 'no CLS', 'no qkv bias'])
@pytest.mark.parametrize('neck', ['PromptingDecoder', 'MAEDecoder', 'align'])
def test_pretraining_goes_on_from_them(backbone, neck, teacher_folder, tmp_path):
    config = milan_config(teacher_folder)
    config['backbone'].update(backbone)
    if neck == 'align':
        config.update(type='milan_mm.MaskAlign', neck=dict(
            type='milan_mm.DynamicAlignment', student_levels=2), head=dict(
                type='milan_mm.AlignmentHead', loss=dict(type='milan_mm.SmoothL1AlignmentLoss')))
    else:
        config['neck']['type'] = f'milan_mm.{neck}'
    if backbone is DINOV3:
        save_file(dinov3().state_dict(), tmp_path / 'vit.safetensors')
        config['init_from'] = str(tmp_path / 'vit.safetensors')
    model = MODELS.build(config)
    model.init_weights()
    model(torch.randn(2, 3, 32, 32), mode='loss')['loss'].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all()
               for name, p in model.backbone.named_parameters()
               if p.requires_grad and not name.startswith('ln2'))


def test_detection_and_segmentation_go_on_from_dinov3(tmp_path):
    save_file(dinov3().state_dict(), tmp_path / 'vit.safetensors')
    init = dict(type='milan_mm.PretrainedViT', checkpoint=str(tmp_path / 'vit.safetensors'))
    options = {k: v for k, v in DINOV3.items() if k != 'num_registers'}
    images, maps = torch.randn(1, 3, 32, 48), []
    for more in (dict(type='milan_mm.WindowedVisionTransformer', window_size=2, final_norm=True),
                 dict(type='milan_mm.MaskedVisionTransformer', out_type='featmap')):
        vit = MODELS.build({**options, **more, 'init_cfg': init, 'norm_cfg': dict(
            type='LN', eps=1e-5), **({} if 'window_size' in more else dict(num_registers=4))})
        vit.init_weights()
        vit.eval()
        assert torch.equal(vit.rotary.periods, milan_mm.get_model(
            tmp_path / 'vit.safetensors').backbone.rotary.periods)
        with torch.no_grad():
            maps.append(vit(images)[-1])
    assert maps[0].shape == maps[1].shape == (1, 128, 4, 6)
    with torch.no_grad():
        want = milan_mm.get_model(tmp_path / 'vit.safetensors')(images).patches
    close(maps[1].flatten(2).transpose(1, 2), want)


def test_windows_over_the_whole_map_are_plain_attention():
    plain = milan_mm.MaskedVisionTransformer(**{**DINOV3, 'num_registers': 0},
                                             with_cls_token=False, out_type='featmap')
    windowed = milan_mm.WindowedVisionTransformer(
        **{k: v for k, v in DINOV3.items() if k != 'num_registers'}, final_norm=True)
    for vit in (plain, windowed):
        vit.init_weights()
        vit.eval()
    windowed.load_state_dict(plain.state_dict(), strict=False)
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        close(plain(images)[-1], windowed(images)[-1])
