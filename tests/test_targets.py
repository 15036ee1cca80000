# SPDX-License-Identifier: Apache-2.0
"""The teachers: against the libraries' own forward, from every kind of file, and refusals."""
import json

import open_clip
import pytest
import torch
from conftest import TINY_CLIP
from safetensors.torch import save_file
from torch import nn

from milan_mm.errors import MilanError
from milan_mm.models.targets import CLIPTargetGenerator, PixelTargetGenerator
from milan_mm.models.targets.clip_towers import resize_positions


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def plain_importance(visual, images):
    """Attention of CLS in the last block, from torch's own multi-head attention."""
    x = visual._embeds(images)
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = block(x)
    x = last.ln_1(x)
    _, weights = last.attn(x, x, x, need_weights=True, average_attn_weights=True)
    return weights[:, 0, 1:]


def test_features_and_importance_are_open_clips(tiny_clip, teacher_folder, images):
    teacher = CLIPTargetGenerator(pretrained=str(teacher_folder))
    target = teacher(images)
    with torch.no_grad():
        assert torch.allclose(target.features[:, 0], tiny_clip.visual(images), atol=1e-5)
        assert torch.allclose(target.importance, plain_importance(tiny_clip.visual, images),
                              atol=1e-6)
        tokens = tiny_clip.visual.transformer(tiny_clip.visual._embeds(images))
        every = tiny_clip.visual.ln_post(tokens) @ tiny_clip.visual.proj
    assert torch.allclose(target.features, every, atol=1e-5)
    assert target.features.shape == (2, 17, 48) and target.importance.shape == (2, 16)
    assert (target.importance.sum(dim=1) < 1).all()  # CLS attends to itself too


def test_every_file_gives_the_same_teacher(tiny_clip, teacher_folder, images, tmp_path):
    want = CLIPTargetGenerator(pretrained=str(teacher_folder))(images).features
    torch.save(tiny_clip.state_dict(), tmp_path / 'whole.pt')
    torch.save(dict(state_dict={f'module.{k}': v for k, v in tiny_clip.state_dict().items()}),
               tmp_path / 'training.pt')
    save_file(tiny_clip.visual.state_dict(), tmp_path / 'tower.safetensors')
    for name in ('whole.pt', 'training.pt', 'tower.safetensors'):
        # heads cannot be read off a bare state dict: width / 64 is assumed, so one head here
        with pytest.raises(MilanError, match='quickgelu'):
            CLIPTargetGenerator(pretrained=str(tmp_path / name))
        got = CLIPTargetGenerator(pretrained=str(tmp_path / name), quickgelu=True)
        assert got.tower.visual.transformer.resblocks[0].attn.num_heads == 1
        for block in got.tower.visual.transformer.resblocks:
            block.attn.num_heads, block.attn.head_dim = 2, 32
        assert torch.allclose(got(images).features, want, atol=1e-5), name


def test_torchscript_archive_is_read_without_running_it(images, tmp_path):
    """What OpenAI published: half precision, heads of 64, ViT in a TorchScript archive."""
    cfg = dict(TINY_CLIP, vision_cfg=dict(TINY_CLIP['vision_cfg'], head_width=64))
    clip = open_clip.CLIP(**cfg).eval()
    path = tmp_path / 'ViT-tiny.pt'
    torch.jit.trace(clip.half().float(), (images, torch.zeros(1, 16, dtype=torch.long))).save(path)
    teacher = CLIPTargetGenerator(pretrained=str(path), quickgelu=True)
    with torch.no_grad():
        assert torch.allclose(teacher(images).features[:, 0], clip.visual(images), atol=1e-5)


def test_hugging_face_folder(images, tmp_path):
    transformers = pytest.importorskip('transformers', exc_type=ImportError)
    config = transformers.CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=2,
        image_size=32, patch_size=8, projection_dim=48, hidden_act='quick_gelu')
    torch.manual_seed(0)
    model = transformers.CLIPVisionModelWithProjection(config).eval()
    model.save_pretrained(tmp_path)
    teacher = CLIPTargetGenerator(pretrained=str(tmp_path))
    with torch.no_grad():
        assert torch.allclose(teacher(images).features[:, 0], model(images).image_embeds,
                              atol=1e-5)
    with pytest.raises(MilanError, match='contradicts'):
        CLIPTargetGenerator(pretrained=str(tmp_path), quickgelu=False)
    assert teacher.tower.mean == pytest.approx(open_clip.OPENAI_DATASET_MEAN)
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(
        dict(image_mean=[.5, .4, .3], image_std=[.2, .2, .1])))
    tower = CLIPTargetGenerator(pretrained=str(tmp_path)).tower
    assert tower.mean == (.5, .4, .3) and tower.std == (.2, .2, .1)
    (tmp_path / 'preprocessor_config.json').write_text('{"image_mean": "none"}')
    with pytest.raises(MilanError, match='preprocessor_config.json does not tell'):
        CLIPTargetGenerator(pretrained=str(tmp_path))


def test_siglip_tower(images):
    """No CLS: the pooling query's attention is the importance."""
    import timm
    from open_clip.timm_model import TimmModel

    from milan_mm.models.targets.clip_towers import wrap_tower
    torch.manual_seed(0)
    visual = TimmModel('vit_base_patch16_siglip_224', embed_dim=64, image_size=32, pool='map',
                       proj='none')
    visual.trunk = timm.create_model(
        'vit_base_patch16_siglip_224', img_size=32, patch_size=8, embed_dim=64, depth=2,
        num_heads=2, num_classes=0, global_pool='map')
    visual.eval()
    teacher = CLIPTargetGenerator(tower=wrap_tower(visual, 'SigLIP'))
    target = teacher(images)
    with torch.no_grad():
        assert torch.allclose(target.features[:, 0], visual(images), atol=1e-5)
        assert torch.allclose(target.features[:, 1:], visual.trunk.forward_features(images),
                              atol=1e-5)
        pool, tokens = visual.trunk.attn_pool, visual.trunk.forward_features(images)
        q = pool.q(pool.latent).reshape(1, 1, 2, 32).transpose(1, 2)
        k = pool.kv(tokens).reshape(2, 16, 2, 2, 32)[:, :, 0].transpose(1, 2)
        weights = ((q @ k.transpose(-2, -1)) / 32**.5).softmax(-1).mean(1)[:, 0]
    assert torch.allclose(target.importance, weights, atol=1e-6)
    assert torch.allclose(target.importance.sum(dim=1), torch.ones(2), atol=1e-5)
    teacher.match_student((6, 4), None, None)
    assert teacher(torch.randn(1, 3, 48, 32)).importance.shape == (1, 24)


@pytest.mark.parametrize('grid', [(4, 4), (3, 3), (6, 4)])
def test_grid_of_the_student(teacher_folder, grid):
    """A student of 16-pixel patches: the 8-pixel teacher is fed an image half the size."""
    teacher = CLIPTargetGenerator(pretrained=str(teacher_folder))
    teacher.match_student(grid, None, None)
    target = teacher(torch.randn(2, 3, grid[0] * 16, grid[1] * 16))
    assert target.features.shape == (2, grid[0] * grid[1] + 1, 48)
    assert target.importance.shape == (2, grid[0] * grid[1])


def test_resized_positions_keep_a_plane():
    """Interpolation keeps what is linear in the middle of the grid, and CLS as it is."""
    rows = torch.arange(8.).view(8, 1).expand(8, 8).reshape(-1, 1)
    positions = torch.cat([torch.full((1, 1), 5.), rows])
    smaller = resize_positions(positions, (8, 8), (4, 4))
    assert smaller[0] == 5 and smaller.shape == (17, 1)
    assert torch.allclose(smaller[1:].view(4, 4)[1:3, 0], torch.tensor([2.5, 4.5]), atol=0.1)
    assert resize_positions(positions, (8, 8), (8, 8)) is positions


def test_normalize_clip_renormalises(teacher_folder, tiny_clip):
    pixels = torch.randint(0, 256, (1, 3, 32, 32)).float()
    mean, std = torch.tensor([120., 110, 100]), torch.tensor([60., 50, 40])
    student_sees = (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    tower_wants = ((pixels / 255 - torch.tensor([.5, .4, .3]).view(3, 1, 1)) /
                   torch.tensor([.2, .3, .4]).view(3, 1, 1))
    teacher = CLIPTargetGenerator(pretrained=str(teacher_folder), normalize='clip')
    teacher.match_student((4, 4), mean.tolist(), std.tolist())
    with torch.no_grad():
        want = tiny_clip.visual(tower_wants)
        assert torch.allclose(teacher(student_sees).features[:, 0], want, atol=1e-4)
        plain = CLIPTargetGenerator(pretrained=str(teacher_folder))
        plain.match_student((4, 4), mean.tolist(), std.tolist())
        assert torch.allclose(plain(student_sees).features[:, 0], tiny_clip.visual(student_sees),
                              atol=1e-5)
    with pytest.raises(MilanError, match='mean and std'):
        teacher.match_student((4, 4), None, None)


def test_amp_is_the_teachers_own(teacher_folder, images):
    full = CLIPTargetGenerator(pretrained=str(teacher_folder), amp='fp32')
    low = CLIPTargetGenerator(pretrained=str(teacher_folder), amp='bf16')
    with torch.autocast('cpu', torch.bfloat16):
        assert full(images).features.dtype == torch.float32
    assert low(images).features.dtype == torch.bfloat16
    assert low(images).importance.dtype == torch.float32


@pytest.mark.parametrize('arguments, message', [
    (dict(), 'needs model'),
    (dict(pretrained='/no/such/file.pt'), 'neither a file nor a folder'),
    (dict(model='ViT-B-16', pretrained='openai'), 'ViT-B-16-quickgelu'),
    (dict(model='ViT-B-16-quickgelu', pretrained='laion2b_s34b_b88k'), "no weights"),
    (dict(model='ViT-B-61', pretrained='openai'), 'near to it'),
    (dict(model='ViT-B-16', pretrained='no_such_tag'), 'it has'),
    (dict(model='RN50', pretrained=None), 'neither a CLS token'),
    (dict(model='ViT-B-32', pretrained=None, quickgelu=True), 'contradicts'),
    (dict(model='ViT-B-32', pretrained=None, normalize='imagenet'), 'normalize'),
    (dict(model='ViT-B-32', pretrained=None, amp='int8'), 'amp'),
])
def test_refusals(arguments, message):
    with pytest.raises(MilanError, match=message):
        CLIPTargetGenerator(**arguments)


def test_weights_of_another_tower(tmp_path):
    save_file(dict(weight=torch.ones(2)), tmp_path / 'x.safetensors')
    with pytest.raises(MilanError, match='does not look like a CLIP ViT'):
        CLIPTargetGenerator(pretrained=str(tmp_path / 'x.safetensors'), quickgelu=True)
    with pytest.raises(MilanError, match='does not fit'):
        CLIPTargetGenerator('ViT-B-32', str(tmp_path / 'x.safetensors'))


def test_folder_that_contradicts(teacher_folder, tmp_path):
    with pytest.raises(MilanError, match='contradicts'):
        CLIPTargetGenerator(pretrained=str(teacher_folder), quickgelu=False)
    with pytest.raises(MilanError, match='not a folder of CLIP weights'):
        CLIPTargetGenerator(pretrained=str(tmp_path))
    (tmp_path / 'config.json').write_text(json.dumps(dict(model_type='bert')))
    with pytest.raises(MilanError, match='bert'):
        CLIPTargetGenerator(pretrained=str(tmp_path))


def test_pixel_target_against_a_loop():
    images = torch.randn(2, 3, 16, 24)
    target = PixelTargetGenerator(8, norm_pix=False)(images)
    want = [images[:, :, r:r + 8, c:c + 8].permute(0, 2, 3, 1).reshape(2, -1)
            for r in (0, 8) for c in (0, 8, 16)]
    assert torch.equal(target.features, torch.stack(want, dim=1))
    normed = PixelTargetGenerator(8, norm_pix=True)(images).features
    assert torch.allclose(normed.mean(-1), torch.zeros(2, 6), atol=1e-5)
    assert torch.allclose(normed.var(-1), torch.ones(2, 6), atol=1e-3)


def test_teacher_stays_frozen(teacher_folder):
    teacher = CLIPTargetGenerator(pretrained=str(teacher_folder)).train()
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    teacher.match_student((6, 6), None, None)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert isinstance(teacher.tower.visual.positional_embedding, nn.Parameter)
