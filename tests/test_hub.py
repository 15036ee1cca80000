# SPDX-License-Identifier: Apache-2.0
"""A trained encoder, from a file to features."""
import numpy as np
import pytest
import torch
from helpers_eval import ARCH, MEAN, PATCH, SIZE, STD, logged, tiny_encoder, write_checkpoint
from PIL import Image
from safetensors.torch import save_file

import milan_mm
from milan_mm import MilanError
from milan_mm.checkpoints.naming import to_published
from milan_mm.checkpoints.vit import read_vit
from milan_mm.inference.encoders import get_teacher, random_like
from milan_mm.models.encoder import ARCHITECTURES
from milan_mm.positions import sincos_positions


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    path = tmp_path / 'image.png'
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_features_are_the_encoders_own(tmp_path, suffix):
    encoder = tiny_encoder(seed=3)
    model = milan_mm.get_model(write_checkpoint(tmp_path / f'epoch_1{suffix}', encoder))
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    images = torch.randn(2, 3, *SIZE)
    out = model(images)
    tokens = encoder(images)[0]
    assert out.grid == (2, 3) and out.patches.shape == (2, 6, 32)
    torch.testing.assert_close(out.cls, tokens[:, 0], rtol=0, atol=0)
    torch.testing.assert_close(out.pooled, tokens[:, 1:].mean(1), rtol=0, atol=0)
    torch.testing.assert_close(out.patches, tokens[:, 1:], rtol=0, atol=0)


def test_images_paths_and_tensors_agree(tmp_path, image):
    model = milan_mm.get_model(write_checkpoint(tmp_path / 'a.pth'), crop_ratio=1.0)
    by_path = model(image)
    with Image.open(image) as opened:
        by_image = model([opened, opened])
        # By hand: the largest central 2:3 box, resized; the checkpoint's mean and std.
        crop = opened.resize((24, 16), Image.Resampling.BICUBIC, box=(5, 0, 65, 40))
    pixels = torch.from_numpy(np.array(crop)).permute(2, 0, 1).float()
    pixels = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    by_tensor = model(pixels)
    torch.testing.assert_close(by_path.cls, by_tensor.cls)
    torch.testing.assert_close(by_image.patches[1:], by_tensor.patches)


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P', 'CMYK', 'I;16'])
def test_images_of_any_mode(tmp_path, mode):
    model = milan_mm.get_model(write_checkpoint(tmp_path / 'a.pth'))
    image = Image.new('I;16', (24, 16), 30000) if mode == 'I;16' else Image.new(
        'RGB', (24, 16), (200, 10, 30)).convert(mode)
    assert model(image).cls.isfinite().all()


def test_other_image_sizes(tmp_path, image):
    """Interpolated positions are the sine-cosine ones of the rescaled coordinate."""
    path = write_checkpoint(tmp_path / 'a.pth', tiny_encoder(img_size=(48, 64)))
    model = milan_mm.get_model(path, img_size=(64, 96))
    assert model(image).grid == (8, 12)
    assert model(torch.randn(1, 3, 24, 40)).grid == (3, 5)

    seen = []
    handle = model.backbone.drop_after_pos.register_forward_hook(
        lambda _, args, __: seen.append(args[0][0, 1:]))
    model.backbone.patch_embed.projection.weight.data.zero_()
    model.backbone.patch_embed.projection.bias.data.zero_()
    model(image)
    handle.remove()
    # From a grid of (6, 8) to one of (8, 12): the same sines at the rescaled places.
    omega = 10000.0**-(torch.arange(8) / 8)
    y = (torch.arange(8) + .5) * 6 / 8 - .5
    x = (torch.arange(12) + .5) * 8 / 12 - .5
    y, x = torch.meshgrid(y, x, indexing='ij')
    y, x = y.reshape(-1, 1) * omega, x.reshape(-1, 1) * omega
    wanted = torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)
    assert (seen[0] - wanted).norm() / wanted.norm() < 0.03
    assert torch.cosine_similarity(seen[0], wanted).min() > 0.998


def test_size_that_does_not_tile(tmp_path):
    model = milan_mm.get_model(write_checkpoint(tmp_path / 'a.pth'))
    with pytest.raises(MilanError, match='20 is not a multiple of 8'):
        model(torch.randn(1, 3, 16, 20))
    with pytest.raises(MilanError, match='normalised pixels'):
        model(torch.zeros(1, 3, 16, 24, dtype=torch.uint8))
    with pytest.raises(MilanError, match='Pillow image or a path, got ndarray'):
        model([np.zeros((16, 24, 3))])


@pytest.mark.parametrize('nested', [True, False])
def test_published_naming_without_description(tmp_path, nested):
    """MAE's and MILAN's own files: sizes off the shapes, the grid off the positions."""
    encoder = tiny_encoder()
    state = to_published({f'backbone.{k}': v for k, v in encoder.state_dict().items()})
    state.update({'decoder_blocks.0.norm1.weight': torch.ones(4), 'mask_token': torch.ones(4),
                  'head.weight': torch.ones(2, 32)})
    torch.save(dict(model=state) if nested else state, tmp_path / 'published.pth')
    with logged() as messages:
        student = read_vit(tmp_path / 'published.pth')
    loaded, spec = student.encoder, student.spec
    assert spec.img_size == SIZE and spec.patch_size == PATCH  # not square, yet found
    assert spec.arch == dict(ARCH, num_heads=1)
    assert spec.pixel_mean == (123.675, 116.28, 103.53)
    assert all(torch.equal(loaded[k], v) for k, v in encoder.state_dict().items())
    said = ' '.join(messages)
    assert 'does not describe' in said and '1 heads' in said
    assert 'head.weight' in student.beside
    assert milan_mm.get_model(tmp_path / 'published.pth').dim == 32


def test_heads_of_the_known_sizes(tmp_path):
    """ViT-H has 16 heads of 80: width / 64 would give another network without any error."""
    from milan_mm.checkpoints.spec import _inferred_spec
    for arch in ARCHITECTURES.values():
        width = arch['embed_dims']
        state = {
            'patch_embed.projection.weight': torch.empty(width, 3, 14, 14, device='meta'),
            'pos_embed': sincos_positions(width, (4, 4)),
            'cls_token': torch.empty(1, 1, width, device='meta'),
            'layers.0.ffn.layers.0.0.weight': torch.empty(
                arch['feedforward_channels'], width, device='meta'),
            f'layers.{arch["num_layers"] - 1}.ln1.weight': torch.empty(width, device='meta'),
            **{f'layers.{i}.ln1.bias': torch.empty(width, device='meta')
               for i in range(arch['num_layers'])},
        }
        spec = _inferred_spec(state, 'x')
        assert spec.arch == arch and spec.img_size == (56, 56)


def test_missing_and_left_over_tensors_are_named(tmp_path):
    path = write_checkpoint(tmp_path / 'a.pth')
    checkpoint = torch.load(path)
    del checkpoint['state_dict']['backbone.layers.1.attn.qkv.bias']
    checkpoint['state_dict']['backbone.layers.1.gamma'] = torch.ones(3)
    torch.save(checkpoint, path)
    with pytest.raises(MilanError, match=r'missing .*layers\.1\.attn\.qkv\.bias.*'
                       r'left over .*layers\.1\.gamma'):
        milan_mm.get_model(path)


@pytest.mark.parametrize('wrong', [
    dict(patch_size=4), dict(img_size=(16, 32)), dict(arch=dict(ARCH, num_layers=3)),
    dict(arch=dict(ARCH, num_heads=5)), dict(img_size='16'), dict(arch=7)])
def test_description_that_contradicts_the_weights(tmp_path, wrong):
    path = write_checkpoint(tmp_path / 'a.pth')
    checkpoint = torch.load(path)
    checkpoint['meta']['milan_mm']['encoder'].update(wrong)
    torch.save(checkpoint, path)
    with pytest.raises(MilanError, match='contradicts its weights|not understood'):
        milan_mm.get_model(path)


def test_files_that_are_no_encoder(tmp_path):
    with pytest.raises(MilanError, match='no such checkpoint.*vit-b'):
        milan_mm.get_model('vit-z')
    save_file({'visual.proj': torch.ones(2)}, tmp_path / 'clip.safetensors')
    with pytest.raises(MilanError, match='holds no encoder of a known kind.*visual.proj'):
        milan_mm.get_model(tmp_path / 'clip.safetensors')


def test_random_weights_by_name_and_like_a_checkpoint(tmp_path):
    path = write_checkpoint(tmp_path / 'a.pth')
    before = torch.random.get_rng_state()
    first, same, other = (random_like(path, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    trained = milan_mm.get_model(path)
    images = torch.randn(1, 3, *SIZE)
    assert torch.equal(first(images).cls, same(images).cls)
    assert not torch.allclose(first(images).cls, other(images).cls)
    assert not torch.allclose(first(images).cls, trained(images).cls)
    assert torch.equal(first.pixel_std, trained.pixel_std) and first.img_size == SIZE

    small = milan_mm.get_model('vit-s', img_size=32)
    assert small.dim == 384 and small(torch.randn(1, 3, 32, 32)).grid == (2, 2)
    with pytest.raises(MilanError, match='no weights come with vit-s'):
        milan_mm.get_model('vit-s', pretrained=True)


def test_a_teacher_is_measured_like_a_student(tmp_path):
    """Its features are those of the tower's own forward pass, on the student's grid."""
    from milan_mm import CLIPTargetGenerator
    from milan_mm.models.targets.clip_weights import tower_from_state
    torch.manual_seed(0)
    width = 64
    block = {
        'ln_1.weight': torch.ones(width), 'ln_1.bias': torch.zeros(width),
        'ln_2.weight': torch.ones(width), 'ln_2.bias': torch.zeros(width),
        'attn.in_proj_weight': torch.randn(3 * width, width) * .1,
        'attn.in_proj_bias': torch.zeros(3 * width),
        'attn.out_proj.weight': torch.randn(width, width) * .1,
        'attn.out_proj.bias': torch.zeros(width),
        'mlp.c_fc.weight': torch.randn(2 * width, width) * .1,
        'mlp.c_fc.bias': torch.zeros(2 * width),
        'mlp.c_proj.weight': torch.randn(width, 2 * width) * .1,
        'mlp.c_proj.bias': torch.zeros(width)}
    state = {
        'visual.conv1.weight': torch.randn(width, 3, 4, 4) * .1,
        'visual.class_embedding': torch.randn(width),
        'visual.positional_embedding': torch.randn(10, width),
        'visual.proj': torch.randn(width, 20),
        **{f'visual.{ln}.{kind}': fill(width) for ln in ('ln_pre', 'ln_post')
           for kind, fill in (('weight', torch.ones), ('bias', torch.zeros))},
        **{f'visual.transformer.resblocks.0.{k}': v for k, v in block.items()}}
    save_file(state, tmp_path / 'clip.safetensors')
    with pytest.raises(MilanError, match='which GELU'):
        get_teacher(str(tmp_path / 'clip.safetensors'))
    path = str(tmp_path / 'clip.safetensors')
    native = get_teacher(path, quickgelu=True)
    assert native.img_size == (12, 12) and native.dim == 20
    images = torch.randn(2, 3, 12, 12)
    visual = tower_from_state(state, True, name='x').visual.eval()
    torch.testing.assert_close(native(images).cls, visual(images), rtol=1e-4, atol=1e-5)

    student_like = get_teacher(path, (16, 24), 8, quickgelu=True)
    assert student_like(torch.randn(1, 3, 16, 24)).grid == (2, 3)
    with pytest.raises(MilanError, match='set to images of'):
        student_like(torch.randn(1, 3, 16, 16))
    assert isinstance(student_like.teacher, CLIPTargetGenerator)
