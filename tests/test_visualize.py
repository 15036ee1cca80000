# SPDX-License-Identifier: Apache-2.0
"""The config in a checkpoint, and the images of what a trained model does."""
import itertools
import runpy
import shutil
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_VIT, milan_config
from helpers_eval import run_tool_here
from helpers_pages import Elements, check_page
from mmengine.config import Config
from PIL import Image

from milan_mm import MilanError
from milan_mm.analysis.visualization.painting import as_uint8, paint
from milan_mm.analysis.visualization.rollout import cls_rollout, layer_attentions, rollout
from milan_mm.analysis.visualization.tiles import Painter, facts_of, rank_correlation, seen_masked
from milan_mm.analysis.visualization.views import usable_ratios, view
from milan_mm.analysis.visualization.visualize import gather, visualize
from milan_mm.checkpoints.saved_config import parse_literals, saved_config
from milan_mm.drawing import panels
from milan_mm.inference.checkpoint import Checkpoint
from milan_mm.inference.encoders import get_model
from milan_mm.inference.images import load_pixels
from milan_mm.inference.pretraining import (
    build_pretraining,
    inputs_of,
    load_pretraining,
    mask_keys,
)
from milan_mm.inference.teachers import set_teacher, teacher_of
from milan_mm.keyed_random import sample_key
from milan_mm.models import MaskedVisionTransformer, PixelTargetGenerator, SemanticMaskGenerator
from milan_mm.registry import MODELS

EVIL = '<script>alert(1)</script> & "q".png'.replace('/', '_')


def mae_config(**changes):
    return milan_config(
        '', target_generator=dict(type='milan_mm.PixelTargetGenerator', patch_size=8),
        mask_generator=dict(type='milan_mm.RandomMaskGenerator', mask_ratio=0.75),
        neck=dict(type='milan_mm.MAEDecoder', decoder_embed_dim=32, decoder_depth=1,
                  decoder_num_heads=4),
        head=dict(type='milan_mm.ReconstructionHead', tokens='masked',
                  loss=dict(type='milan_mm.MSEReconstructionLoss')), **changes)


def write_run(path, model_cfg):
    """A checkpoint as mmengine writes it, the config's text included, of an untrained model."""
    cfg = Config(dict(
        model=model_cfg, data_preprocessor=dict(
            type='milan_mm.PretrainDataPreprocessor', mean=[120., 110., 100.], std=[50., 60., 70.]),
        custom_imports=dict(imports=['milan_mm'], allow_failed_imports=False)))
    text = cfg.pretty_text
    torch.manual_seed(0)
    model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor})
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=text, epoch=1)), path)
    return path


@pytest.fixture(scope='module')
def folder(tmp_path_factory, teacher_folder):
    folder = tmp_path_factory.mktemp('visualize')
    shutil.copytree(teacher_folder, folder / 'teacher')
    write_run(folder / 'milan.pth', milan_config(folder / 'teacher'))
    write_run(folder / 'mae.pth', mae_config())
    rng = np.random.default_rng(0)
    (folder / 'data/some').mkdir(parents=True)
    for name in (EVIL, 'a.png', 'b.png', 'c.png', 'd.png', 'e.png'):
        blocks = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((50, 40), 0).save(folder / 'data/some' / name)
    return folder


@pytest.fixture(scope='module')
def milan(folder):
    return load_pretraining(folder / 'milan.pth')


@pytest.fixture(scope='module')
def pixels(folder):
    return load_pixels(sorted((folder / 'data/some').iterdir()), (32, 32))


# ------------------------------------------------------------------------------------- saved config


@pytest.mark.parametrize('name', [
    'milan/vitb_pretrain.py', 'milan/vitl_pretrain_fsdp.py', 'quickstart/mae.py',
    'mask_rcnn/vitb_coco_lsj1024_100e.py', 'upernet/vitb_ade20k_512_160k.py'])
def test_a_saved_config_is_the_config(name):
    cfg = Config.fromfile(ROOT / 'configs' / name)
    assert parse_literals(cfg.pretty_text) == cfg.to_dict()


def test_literals_of_every_kind():
    cfg = Config(dict(a=dict({'x.y': -1e-3, 'z': (1, )}), b=[dict(c=None), (True, 'q"\''), []],
                      d=float('inf'), e=dict(f={})))
    assert parse_literals(cfg.pretty_text) == cfg.to_dict()
    assert parse_literals('a = list([1, 2])\nb = tuple((1, [2]))\nc = dict({"d": 1}, e=2)') == dict(
        a=[1, 2], b=(1, [2]), c=dict(d=1, e=2))


@pytest.mark.parametrize('text', [
    'model = open("{0}", "w")', 'import os\nmodel = dict()', 'model = [open("{0}", "w")][0]',
    'model = dict(**open("{0}", "w"))', 'model = [x for x in (1,)]', 'model = {{**dict()}}',
    'model = dict([("a", 1)])', 'a = b = 1', 'a.b = 1', 'model = (lambda: 1)()', 'model = {{1}}',
    'model = f"{{1}}"', 'model = 10 ** 8', 'dict = open\nmodel = dict(', '(' * 400 + ')' * 400,
    'model = {{[]: 1}}', 'model = -True'])
def test_nothing_is_executed(text, tmp_path):
    text = text.format(tmp_path / 'ran')
    torch.save(dict(state_dict={}, meta=dict(cfg=text)), tmp_path / 'evil.pth')
    with pytest.raises(MilanError, match='evil.pth is not read, because .*--config CONFIG'):
        saved_config(tmp_path / 'evil.pth')
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('name', ['os.system', 'mmengine.load', 'antigravity', 'milan_mm.get_model',
                                  'mmpretrain.models.VisionTransformer', 'torch.nn.Linear'])
def test_only_registered_classes_can_be_built(name):
    """mmengine's registries import whatever module an unknown name begins with."""
    text = f"model = dict(type='milan_mm.MILAN', backbone=dict(a=[dict(type='{name}')]))"
    with pytest.raises(MilanError, match=f"wants a '{name}', which neither"):
        saved_config(dict(meta=dict(cfg=text)))


def test_a_saved_config_trusts_no_file():
    text = ("model = dict(type='milan_mm.MILAN', trust_init_from=True,\n"
            "    target_generator=dict(parts=[dict(checkpoint='x', trust=True)]))")
    model = saved_config(dict(meta=dict(cfg=text))).model
    assert model.trust_init_from is False and model.target_generator.parts[0].trust is False


def test_a_checkpoint_without_a_config(tmp_path):
    torch.save(dict(state_dict=dict(a=torch.zeros(1))), tmp_path / 'bare.pth')
    with pytest.raises(MilanError, match='bare.pth does not hold the config.*--config'):
        saved_config(tmp_path / 'bare.pth')
    with pytest.raises(MilanError, match='bare.pth does not hold the config.*--config'):
        load_pretraining(tmp_path / 'bare.pth')


# ---------------------------------------------------------------------------------- loading it


def test_a_pretraining_is_loaded_from_its_checkpoint_alone(folder, milan):
    state = torch.load(folder / 'milan.pth', weights_only=True)['state_dict']
    assert all(torch.equal(state[name], value) for name, value in milan.state_dict().items())
    assert not milan.training and not any(p.requires_grad for p in milan.parameters())
    assert milan.data_preprocessor.mean.flatten().tolist() == [120, 110, 100]


def test_a_checkpoint_is_read_once(folder, milan, tmp_path):
    """Config, whole model, teacher and encoder come from one reading: the file is gone by then."""
    file = shutil.copy(folder / 'milan.pth', tmp_path / 'x.pth')
    checkpoint = Checkpoint(file, options={'model.mask_generator.mask_ratio': 0.5})
    file.unlink()
    assert checkpoint.is_pretraining and teacher_of(checkpoint) == str(folder / 'teacher')
    model = build_pretraining(checkpoint, folder / 'teacher')
    assert model.mask_generator.mask_ratio == 0.5
    encoder = get_model(checkpoint.vit()).backbone
    for name, value in milan.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value)
        assert torch.equal(encoder.state_dict()[name], value)


def test_a_teacher_that_moved(folder, tmp_path, teacher_folder):
    checkpoint = write_run(tmp_path / 'x.pth', milan_config(teacher_folder))
    content = torch.load(checkpoint, weights_only=True)
    content['meta']['cfg'] = content['meta']['cfg'].replace(str(teacher_folder), '/gone/away')
    torch.save(content, checkpoint)
    with pytest.raises(MilanError, match='/gone/away.* --teacher says where it is now'):
        load_pretraining(checkpoint)
    load_pretraining(checkpoint, teacher=folder / 'teacher')
    load_pretraining(
        checkpoint, options={'model.target_generator.pretrained': str(folder / 'teacher')})


def test_where_a_teacher_is_put():
    model = Config(dict(target_generator=dict(type='milan_mm.CLIPTargetGenerator'))).to_dict()
    set_teacher(model, 'ViT-B-16-quickgelu:openai')
    assert model['target_generator']['model'] == 'ViT-B-16-quickgelu'
    assert model['target_generator']['pretrained'] == 'openai'
    model = dict(target_generator=dict(type='milan_mm.PixelTargetGenerator'))
    set_teacher(model, 'some/folder')
    assert model['importance_generator'] == dict(
        type='milan_mm.CLIPTargetGenerator', pretrained='some/folder')
    assert model['target_generator'] == dict(type='milan_mm.PixelTargetGenerator')
    model = dict(target_generator=dict(type='milan_mm.EncoderTargetGenerator', checkpoint='a'))
    set_teacher(model, 'b.pth')
    assert model['target_generator']['checkpoint'] == 'b.pth'
    model = dict(target_generator=dict(type='milan_mm.CLIPLevelsTargetGenerator', pretrained='a'))
    set_teacher(model, 'b')
    assert model['target_generator']['pretrained'] == 'b'
    with pytest.raises(MilanError, match='ConcatTargetGenerator, not from one file.*--cfg-options'):
        set_teacher(dict(target_generator=dict(type='milan_mm.ConcatTargetGenerator')), 'x')


def test_a_teacher_that_is_an_average(tmp_path):
    cfg = milan_config('', target_generator=dict(
        type='milan_mm.EMATargetGenerator', arch=dict(TINY_VIT), levels=1))
    checkpoint = write_run(tmp_path / 'ema.pth', cfg)
    with pytest.raises(MilanError, match='ema.pth keeps no average'):
        load_pretraining(checkpoint)
    content = torch.load(checkpoint, weights_only=True)
    state = {name.removeprefix('backbone.'): 2 * value
             for name, value in content['state_dict'].items() if name.startswith('backbone.')}
    torch.save(dict(content, ema_teacher=[state]), checkpoint)
    model = load_pretraining(checkpoint)
    average = model.target_generator.average.state_dict()
    assert all(torch.equal(average[name], value) for name, value in state.items())
    assert view(model, torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).teacher.shape == (1, 16, 48)


def test_another_config_than_the_checkpoints(folder, tmp_path):
    Config(dict(model=mae_config())).dump(tmp_path / 'mae.py')
    with pytest.raises(MilanError, match='milan.pth does not hold the model of .*mae.py'):
        load_pretraining(folder / 'milan.pth', tmp_path / 'mae.py')


# ------------------------------------------------------------------------------------------ rollout


def test_rollout_sums_over_paths():
    """Every way from an input token to an output token, one block at a time."""
    torch.manual_seed(0)
    maps = [torch.rand(2, 4, 4).softmax(dim=-1) for _ in range(3)]
    rolled = rollout(maps)
    torch.testing.assert_close(rolled.sum(dim=-1), torch.ones(2, 4))
    mixed = [0.5 * m + 0.5 * torch.eye(4) for m in maps]
    for b, out, start in itertools.product(range(2), range(4), range(4)):
        total = sum(mixed[0][b, i, start] * mixed[1][b, j, i] * mixed[2][b, out, j]
                    for i, j in itertools.product(range(4), range(4)))
        torch.testing.assert_close(rolled[b, out, start], total)


def test_attention_is_the_blocks_own():
    """With one head, map times values, projected, is what the block's attention gives."""
    torch.manual_seed(0)
    vit = MaskedVisionTransformer(
        dict(embed_dims=16, num_layers=3, num_heads=1, feedforward_channels=32), 16, 8)
    vit.init_weights()
    vit.eval()
    entered, left = [], []
    for layer in vit.layers:
        layer.attn.register_forward_hook(
            lambda _, inputs, output: entered.append(inputs[0]) or left.append(output))
    images = torch.randn(2, 3, 16, 16)
    maps = layer_attentions(vit, images)
    assert len(maps) == 3 and len(entered) == 3
    for layer, attention, tokens, output in zip(vit.layers, maps, entered, left):
        value = layer.attn.qkv(tokens)[..., 32:]
        torch.testing.assert_close(layer.attn.proj(attention @ value), output)
        assert not layer.attn._forward_pre_hooks
    share = cls_rollout(vit, images)
    assert share.shape == (2, 4)
    torch.testing.assert_close(share.sum(dim=1), torch.ones(2))


@pytest.mark.parametrize('options', [dict(num_registers=3), dict(with_cls_token=False,
                                                                 out_type='raw')])
def test_rollout_of_other_tokens(options):
    """Registers are no patches; without CLS the mean of the patches speaks."""
    torch.manual_seed(0)
    vit = MaskedVisionTransformer(
        dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32), 16, 8, **options)
    vit.init_weights()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        share, rolled = cls_rollout(vit, images), rollout(layer_attentions(vit, images))
    assert share.shape == (2, 4)
    row = rolled[:, 0, 4:] if 'num_registers' in options else rolled.mean(dim=1)
    torch.testing.assert_close(share, row / row.sum(dim=1, keepdim=True))


def test_heads_are_averaged():
    torch.manual_seed(0)
    vit = MaskedVisionTransformer(
        dict(embed_dims=16, num_layers=1, num_heads=4, feedforward_channels=32), 16, 8)
    tokens = []
    vit.layers[0].attn.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0]))
    found = layer_attentions(vit, torch.randn(1, 3, 16, 16))[0]
    query, key, _ = vit.layers[0].attn.qkv(tokens[0])[0].split(16, dim=-1)
    by_head = [(query[:, h:h + 4] @ key[:, h:h + 4].T / 2).softmax(dim=-1) for h in range(0, 16, 4)]
    torch.testing.assert_close(found[0], sum(by_head) / 4)


# -------------------------------------------------------------------------------------------- views


def test_views_are_the_training_step(milan, pixels):
    """The step spelt out by its parts gives what is seen."""
    views = view(milan, pixels, seed=3)
    keys = torch.tensor([sample_key(3, 0, i, 'look') for i in range(len(pixels))])
    inputs = milan.data_preprocessor(dict(inputs=pixels))['inputs']
    target = milan.target_generator(inputs)
    features, importance = target.features[:, 1:], target.importance
    masks = milan.mask_generator(importance, keys)
    predicted = masks.to_raster(milan.neck(milan.backbone(inputs, masks.visible), masks))[:, 1:]
    error = 2 - 2 * torch.cosine_similarity(predicted, features, dim=-1)
    assert views.trained.ratio == 0.75 and views.trained is views.attempts[2]
    for ours, theirs in ((views.trained.visible, masks.visible), (views.trained.error, error),
                         (views.trained.predicted, predicted),
                         (views.importance, importance / importance.sum(dim=1, keepdim=True)),
                         (views.student, milan.backbone(inputs)[-1][:, 1:]),
                         (views.target, features), (views.teacher, features)):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert torch.equal(views.masks[:, 0], masks.visible)
    assert len({tuple(sorted(m.tolist())) for m in views.masks.flatten(0, 1)}) > len(pixels)


def test_more_masked_means_a_part_is_seen(milan, pixels):
    views = view(milan, pixels, seed=1)
    assert [one.visible.shape[1] for one in views.attempts] == [12, 8, 4, 1]
    for less, more in zip(views.attempts, views.attempts[1:]):
        for wide, narrow in zip(less.visible, more.visible):
            assert set(narrow.tolist()) < set(wide.tolist())
    assert milan.mask_generator.mask_ratio == 0.75
    assert usable_ratios((0.99, 0.5, 0.01), 0.75, 16) == [0.01, 0.5, 0.75]
    assert usable_ratios((0.0001, 0.75), 0.75, 16) == [0.0001, 0.75]


class OneInFour(SemanticMaskGenerator):
    """Knows one ratio only."""

    def draw(self, importance, noise, visible):
        return super().draw(importance, noise, 4)


def test_masks_that_follow_no_ratio(folder, pixels):
    model = load_pretraining(folder / 'milan.pth')
    model.mask_generator = OneInFour(0.75)
    views = view(model, pixels)
    assert [one.ratio for one in views.attempts] == [0.75]
    del model.mask_generator.mask_ratio
    model.mask_generator.num_visible = lambda patches, ratio: 4
    assert [one.ratio for one in view(model, pixels).attempts] == [0.75]


def test_the_views_of_a_image_do_not_depend_on_the_batch(milan, pixels, monkeypatch):
    whole = view(milan, pixels, seed=2)
    monkeypatch.setattr('milan_mm.analysis.visualization.views._TOGETHER', 4)
    steps = []
    parts = view(milan, pixels, seed=2, on_step=lambda: steps.append(1))
    assert len(steps) == len(pixels)
    assert torch.equal(whole.masks, parts.masks)
    torch.testing.assert_close(whole.rollout, parts.rollout)
    for one, other in zip(whole.attempts, parts.attempts):
        torch.testing.assert_close(one.error, other.error)


def test_numbers_of_a_image(milan, pixels):
    views = view(milan, pixels)
    at = [views.trained.visible[1].tolist(),
          sorted(set(range(16)) - set(views.trained.visible[1].tolist()))]
    cosine = torch.nn.functional.cosine_similarity(
        views.trained.predicted[1], views.target[1], dim=-1)
    facts = facts_of(views, 1, 'cos')
    assert facts['cos on seen patches'] == pytest.approx(float(cosine[at[0]].mean()), abs=1e-5)
    assert facts['cos on masked patches'] == pytest.approx(float(cosine[at[1]].mean()), abs=1e-5)
    assert facts['importance seen'] == pytest.approx(
        sum(float(views.importance[1, i]) for i in at[0]), abs=1e-5)
    everyone = [seen_masked(views.trained, i) for i in range(len(pixels))]
    assert seen_masked(views.trained) == pytest.approx(np.mean(everyone, axis=0), abs=1e-5)
    rising = torch.tensor([1., 2., 3., 9.])
    assert rank_correlation(rising, rising.exp()) == pytest.approx(1)
    assert rank_correlation(rising, -rising) == pytest.approx(-1)
    # ranks 0 1 2 3 against 1 0 3 2: 1 - 6 * 4 / (4 * 15)
    assert rank_correlation(rising, torch.tensor([2., 1., 9., 3.])) == pytest.approx(0.6)


def test_teacher_and_prediction_share_colours(milan, pixels):
    """A prediction that is right has the teacher's colours, whatever its length."""
    views = view(milan, pixels)
    half = torch.rand(views.target.shape, generator=torch.Generator().manual_seed(0))
    half[:3] = 3 * views.target[:3]
    right = [one._replace(predicted=half) for one in views.attempts]
    painter = Painter(views._replace(attempts=right), 'cos', ['x'] * len(pixels))
    torch.testing.assert_close(
        painter.colours.predicted[0][:3], painter.colours.teacher[:3], rtol=0, atol=1e-4)
    own = panels.fit_colours(views.student.flatten(0, 1)).scores(views.student)
    turned = painter.colours.student
    assert (turned - painter.colours.teacher).norm() < (own - painter.colours.teacher).norm()
    torch.testing.assert_close(torch.cdist(turned[0], turned[0]), torch.cdist(own[0], own[0]),
                               rtol=0, atol=1e-3)


# ------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize('norm_pix', [False, True])
def test_a_perfect_prediction_of_pixels_is_the_image(norm_pix, pixels):
    mean, std = [110.] * 3, [60.] * 3
    inputs = (pixels - 110.) / 60.
    generator = PixelTargetGenerator(8, norm_pix)
    target = generator(inputs).features
    visible = torch.tensor([[0, 5]]).expand(len(pixels), -1)
    painted = as_uint8(paint(generator, inputs, target, visible), mean, std)
    assert (painted.int() - pixels.int()).abs().max() <= 1
    blank = as_uint8(paint(generator, inputs, 0 * target, visible), mean, std).float()
    assert torch.equal(blank[..., :8, :8], pixels[..., :8, :8].float())
    patch = (pixels[0, :, :8, 8:16].float() - 110.) / 60.
    expected = patch.mean() * 60 + 110 if norm_pix else torch.tensor(110.)
    assert (blank[0, :, :8, 8:16] - expected).abs().max() <= 1


def captions(views):
    painter = Painter(views, 'mse', ['x'] * len(views.pixels))
    return [tile.caption for row in painter.rows(0) for tile in row.tiles]


def test_mae_is_shown_as_images(folder, pixels):
    model = load_pretraining(folder / 'mae.pth')
    views = view(model, pixels)
    assert views.importance is None and views.teacher is None
    painted = views.trained.painted
    assert painted.shape == pixels.shape and painted.dtype == torch.uint8
    titles = captions(views)
    assert "teacher's importance" not in titles and "encoder's features" in titles
    with_teacher = load_pretraining(folder / 'mae.pth', teacher=folder / 'teacher')
    views = view(with_teacher, pixels)
    teacher = load_pretraining(folder / 'milan.pth')
    assert torch.equal(views.importance, view(teacher, pixels).importance)
    titles = captions(views)
    assert "teacher's importance" in titles and "teacher's features" in titles


# --------------------------------------------------------------------------------------------- page


def test_the_tool(folder, milan, tmp_path, capfd, look_at):
    out = tmp_path / 'out'
    ran = run_tool_here(capfd, 'visualize', folder / 'milan.pth', folder / 'data/some' / EVIL,
                        folder / 'data', '--gallery', folder / 'data', '--out', out,
                        '--num-images', '2')
    assert ran.returncode == 0
    told = ran.stdout
    views = view(milan, load_pixels([folder / 'data/some' / EVIL, *gather(
        [folder / 'data'], 2, 0)[0]], (32, 32)))
    mean = views.trained.measure.gather(1, views.trained.visible).mean()
    assert f'cos on seen patches {mean:.3f}' in told
    assert f'{out}/index.html: 3 images' in told
    assert f'{folder / "data"} has 4 images more' in told
    page = check_page(out / 'index.html', EVIL)
    images = [attrs for tag, attrs in page.elements if tag == 'img']
    assert all(image['src'].startswith('data:image/') and image['alt'] for image in images)
    # 6 + 5 + 3 ratios x 4, and of 6 images in the folder 5 neighbours twice, the query left out
    assert len(images) == 3 * (6 + 5 + 3 * 4 + 2 * 5)
    sheets = sorted(out.glob('*.png'))
    assert [sheet.name[:3] for sheet in sheets] == ['01_', '02_', '03_']
    assert sorted(path.suffix for path in out.iterdir()) == ['.html', '.png', '.png', '.png']
    with Image.open(sheets[0]) as sheet:
        assert sheet.width == 6 * 192 + 5 * 8 + 40  # six panels of 32 px, six times enlarged
    look_at(out / 'index.html')


def test_a_model_that_predicts_nothing(folder, tmp_path):
    cfg = milan_config(
        folder / 'teacher', type='milan_mm.MaskAlign', neck=dict(type='milan_mm.DynamicAlignment'),
        head=dict(type='milan_mm.AlignmentHead', loss=dict(type='milan_mm.SmoothL1AlignmentLoss')))
    model = load_pretraining(write_run(tmp_path / 'align.pth', cfg))
    made = visualize(model, [folder / 'data/some/a.png'], tmp_path / 'out')
    page = Elements(made.page.read_text())
    assert len([1 for tag, _ in page.elements if tag == 'img']) == 6 + 3 + 4
    assert 'rank correlation' in page.text and 'error' not in page.text
    with Image.open(made.sheets[0]) as sheet:
        assert sheet.width == 6 * 192 + 5 * 8 + 40


def test_a_finetuning_is_refused(tmp_path):
    text = ("model = dict(type='mmpretrain.ImageClassifier', backbone=dict(\n"
            "    type='milan_mm.MaskedVisionTransformer', arch='vit-s', img_size=32))")
    torch.save(dict(state_dict={}, meta=dict(cfg=text)), tmp_path / 'x.pth')
    with pytest.raises(MilanError, match=r'model \(ImageClassifier\); expected a pretraining'):
        load_pretraining(tmp_path / 'x.pth')


def test_the_same_seed_gives_the_same_files(folder, milan, tmp_path):
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        visualize(milan, [folder / 'data/some/a.png'], tmp_path / name, seed=seed, ratios=[])
    pages = [(tmp_path / name / 'index.html').read_bytes() for name in 'abc']
    sheets = [(tmp_path / name / '01_a.png').read_bytes() for name in 'abc']
    assert pages[0] == pages[1] != pages[2] and sheets[0] == sheets[1] != sheets[2]


def test_which_images_are_taken(folder, tmp_path):
    some = folder / 'data/some'
    paths, left = gather([some / 'a.png', some, some / 'a.png'], 2, seed=0)
    assert paths[0] == some / 'a.png' and 2 <= len(paths) <= 3 and left == {str(some): 4}
    assert gather([some], 2, 0)[0] == gather([some], 2, 0)[0]
    assert len({tuple(gather([some], 2, seed)[0]) for seed in range(9)}) > 1
    (tmp_path / 'broken.png').write_bytes(b'no image')
    with pytest.raises(MilanError, match='none of the 1 images'):
        gather([tmp_path], 2, 0)
    with pytest.raises(MilanError, match='no such image or folder'):
        gather([tmp_path / 'gone.png'], 2, 0)


def test_mistakes_are_named(folder, milan, tmp_path):
    with pytest.raises(MilanError, match='no such file: .*gone.pth'):
        load_pretraining(folder / 'gone.pth')
    for wrong, words in ((dict(ratios=[1.5]), 'between 0 and 1, got 1.5'),
                         (dict(most=0), 'at least 1')):
        with pytest.raises(MilanError, match=words):
            visualize(milan, [folder / 'data'], tmp_path, **wrong)


def test_the_drawings_of_the_docs_can_be_made_again(folder, tmp_path, monkeypatch, capsys):
    """By the command that docs/concepts.md names, from any checkpoint and its tensors."""
    images = sorted((folder / 'data/some').glob('?.png'))[:3]
    monkeypatch.setattr(sys, 'argv', ['', str(folder / 'milan.pth'), *map(str, images), '--out',
                                      str(tmp_path)])
    monkeypatch.setattr(sys, 'path', sys.path.copy())  # it finds what lies beside it
    runpy.run_path(str(ROOT / 'docs/make_concept_drawings.py'), run_name='__main__')
    said = capsys.readouterr().out
    shipped = sorted(path.name for path in (ROOT / 'docs/concepts').iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == shipped
    for name in shipped:
        for path in (tmp_path / name, ROOT / 'docs/concepts' / name):
            root = ElementTree.parse(path).getroot()
            assert root.get('role') == 'img' and root[0].tag.endswith('title') and root[0].text
            sizes = [int(text.get('font-size')) for text in root.iter() if text.get('font-size')]
            assert min(sizes) >= 13 and 'prefers-color-scheme:dark' in path.read_text()
            assert path.stat().st_size < 150_000
    # The step is the training's own: its mean loss is what a training step gives.
    model = load_pretraining(folder / 'milan.pth')
    pixels = load_pixels(images[:1], (32, 32))
    loss = model.loss(inputs_of(model, pixels), sample_keys=mask_keys(0, [0]))['loss']
    assert f'loss: mean of all tokens {float(loss):.3f}' in said
