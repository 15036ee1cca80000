# SPDX-License-Identifier: Apache-2.0
"""Diagnosis and zero-shot classification: figures held against ones computed another way."""
import copy
import itertools
import json
from datetime import date

import open_clip
import pytest
import torch
from conftest import TINY_CLIP, milan_config
from helpers_eval import run_tool_here, write_checkpoint, write_images
from helpers_pages import check_page
from mmengine.config import Config
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from milan_mm import MilanError
from milan_mm.analysis import activations
from milan_mm.analysis.diagnosis import cka, measures
from milan_mm.analysis.diagnosis.diagnose import Collector, diagnose
from milan_mm.analysis.diagnosis.page import TITLES
from milan_mm.analysis.diagnosis.subject import load_subject
from milan_mm.analysis.visualization.views import view
from milan_mm.analysis.zero_shot import classify as zero_shot
from milan_mm.analysis.zero_shot import prompts as text
from milan_mm.datasets.stream import ImageStream
from milan_mm.engine.hooks import describe_encoder
from milan_mm.inference.encoders import get_model
from milan_mm.inference.pretraining import load_pretraining
from milan_mm.registry import MODELS
from milan_mm.structures import MaskIds

CLIP = dict(TINY_CLIP, text_cfg=dict(
    context_length=16, vocab_size=49408, width=16, heads=2, layers=1))


@pytest.fixture(scope='module')
def clip():
    torch.manual_seed(5)
    return open_clip.CLIP(**CLIP).eval()


@pytest.fixture(scope='module')
def place(clip, tmp_path_factory):
    """A teacher with a text tower, two runs, an encoder alone, and images of 3 classes."""
    root = tmp_path_factory.mktemp('diagnose')
    (root / 'teacher').mkdir()
    save_file(clip.state_dict(), root / 'teacher/open_clip_model.safetensors')
    (root / 'teacher/open_clip_config.json').write_text(json.dumps(dict(model_cfg=CLIP)))
    write_run(root / 'milan.pth', milan_config(root / 'teacher'))
    write_run(root / 'mae.pth', milan_config(
        root / 'teacher',
        target_generator=dict(type='milan_mm.PixelTargetGenerator', patch_size=8),
        mask_generator=dict(type='milan_mm.RandomMaskGenerator'),
        neck=dict(type='milan_mm.MAEDecoder', decoder_embed_dim=32, decoder_depth=1,
                  decoder_num_heads=4),
        head=dict(type='milan_mm.ReconstructionHead', tokens='masked',
                  loss=dict(type='milan_mm.MSEReconstructionLoss'))))
    write_checkpoint(root / 'encoder.safetensors')
    write_images(root / 'images', per_class=8)
    return root


def write_run(path, model, change=lambda built: None):
    torch.manual_seed(3)
    built = MODELS.build(copy.deepcopy(model))
    built.init_weights()
    change(built)
    torch.save(dict(state_dict=built.state_dict(), meta=dict(
        cfg=Config(dict(model=model)).pretty_text, milan_mm=describe_encoder(built))), path)
    return path


# --- CKA


def test_unbiased_hsic_is_the_mean_over_quadruples():
    torch.manual_seed(0)
    first, second = (x @ x.T for x in torch.randn(2, 6, 3).double())
    total = [first[i, j] * (second[i, j] + second[q, r] - 2 * second[i, q])
             for i, j, q, r in itertools.permutations(range(6), 4)]
    off = [gram - torch.diag(gram.diagonal()) for gram in (first, second)]
    torch.testing.assert_close(cka.unbiased_hsic(*off), torch.stack(total).mean())


def value_of(pairs):
    measure = cka.MinibatchCKA()
    for one, other in pairs:
        measure.add([one], [other])
    return measure.value().item()


def test_cka_knows_no_rotation_scale_or_shift():
    torch.manual_seed(0)
    x = torch.randn(40, 12)
    rotation = torch.linalg.qr(torch.randn(12, 12))[0]
    assert value_of([(x, 3 * x @ rotation + 100)]) == pytest.approx(1, abs=1e-5)


def test_cka_of_independent_layers_is_0_where_the_biased_one_is_not():
    generator = torch.Generator().manual_seed(0)
    pairs = [torch.randn(2, 16, 64, generator=generator) for _ in range(50)]

    def biased(x, y):
        x, y = x - x.mean(0), y - y.mean(0)
        return ((x.T @ y).norm()**2 / (x.T @ x).norm() / (y.T @ y).norm()).item()

    assert sum(biased(*pair) for pair in pairs) / 50 > 0.7
    assert abs(value_of(pairs)) < 0.05


def test_cka_of_many_examples_is_the_plain_one():
    torch.manual_seed(0)
    x = torch.randn(2000, 6)
    y = torch.cat([x[:, :3], torch.randn(2000, 4)], dim=1)
    xc, yc = x - x.mean(0), y - y.mean(0)
    plain = ((xc.T @ yc).norm()**2 / (xc.T @ xc).norm() / (yc.T @ yc).norm()).item()
    assert value_of([(x, y)]) == pytest.approx(plain, abs=0.01)
    assert value_of(zip(x.split(50), y.split(50))) == pytest.approx(plain, abs=0.03)


def test_cka_of_a_constant_layer_is_nan_and_few_examples_are_refused():
    x = torch.randn(8, 4)
    assert value_of([(x, torch.ones(8, 4))]) != value_of([(x, torch.ones(8, 4))])
    with pytest.raises(MilanError, match='at least 4'):
        value_of([(x[:3], x[:3])])
    with pytest.raises(MilanError, match='no batch'):
        cka.MinibatchCKA().value()


# --- what is looked at while a tower runs


def test_attention_is_the_one_the_module_uses():
    attn = get_model('vit-s', img_size=32).backbone.layers[0].attn
    tokens = torch.randn(2, 5, 384)
    attention = activations.attention_of(attn, tokens)
    values = attn.qkv(tokens).unflatten(-1, (3, 6, 64))[:, :, 2].transpose(1, 2)
    mixed = (attention @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attn.proj(mixed), attn(tokens), atol=1e-5, rtol=1e-4)


def test_blocks_are_found_by_shape(clip):
    import timm
    encoder = get_model('vit-s').backbone
    assert activations.token_blocks(encoder) == list(encoder.layers)
    assert activations.token_blocks(clip.visual) == list(clip.visual.transformer.resblocks)
    vit = timm.create_model('vit_tiny_patch16_224')
    assert activations.token_blocks(vit) == list(vit.blocks)
    pixels = MODELS.build(dict(type='milan_mm.PixelTargetGenerator', patch_size=8))
    assert activations.token_blocks(pixels) == []


def test_prefix_tokens_are_told_from_patches():
    tokens = torch.arange(2 * 6 * 1.).view(2, 6, 1)
    ids = torch.tensor([[3, 0], [1, 2]])
    cls, patches = activations.cls_and_patches(tokens, ids, 4)  # CLS and a register
    assert cls.flatten().tolist() == [0, 6]
    assert patches.flatten(1).tolist() == [[5, 2], [9, 10]]
    cls, _ = activations.cls_and_patches(tokens, ids, 6)  # none: the mean
    assert cls.flatten().tolist() == [2.5, 8.5]
    assert activations.cls_and_patches(tokens, ids, 7) is None


# --- measures


def test_attention_distance():
    grid = (2, 3)
    distance = measures.AttentionDistance(1, grid, 8)
    even = torch.full((1, 1, 7, 7), 1 / 7)
    own = torch.eye(7)[None, None]
    last = torch.zeros(1, 1, 7, 7)  # half to CLS, which is left out, half to the last patch
    last[..., 0] = last[..., 6] = 0.5
    distance.add(0, torch.cat([even, own, last], dim=1))
    at = [(y, x) for y in range(2) for x in range(3)]
    far = [[8 * ((a[0] - b[0])**2 + (a[1] - b[1])**2)**0.5 for b in at] for a in at]
    mean = sum(map(sum, far)) / 36
    assert distance.even() == pytest.approx(mean)
    assert distance.value()[0] == pytest.approx([mean, 0, sum(row[5] for row in far) / 6])


def test_registers_are_no_patches():
    with_registers, without = (measures.AttentionDistance(1, (2, 2), 8) for _ in range(2))
    attention = torch.rand(1, 2, 7, 7).softmax(dim=-1)  # CLS, two registers, four patches
    with_registers.add(0, attention)
    without.add(0, attention[:, :, 2:, 2:])
    assert with_registers.value() == without.value()


def test_units_that_are_never_and_always_on():
    units = measures.UnitCounts(1)
    first = torch.tensor([[-1., 1, 1, -1], [-1, 1, -1, -1]])
    units.add(0, first[None])
    units.add(0, first[None, :1])
    value = units.value()
    assert (value['units'], value['never'], value['always']) == ([4], [2], [1])
    assert value['quantiles'][0][-1] == 1 and value['quantiles'][0][3] == pytest.approx(1 / 3)
    assert value['tokens'] == [3]


def test_deciles_of_a_look(place):
    """The figures of the page, from another function's step and loops over patches."""
    subject = load_subject(place / 'milan.pth')
    torch.manual_seed(1)
    pixels = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8)
    collector = Collector(subject, 6, seed=7)
    collector.add(pixels, list(range(6)))
    deciles = collector.deciles.value()
    views = view(subject.model, pixels, seed=7)
    seen = views.trained
    for tenth in range(10):
        rows = dict(seen=[], masked=[])
        for b in range(6):
            order = views.importance[b].argsort().tolist()
            part = [patch for rank, patch in enumerate(order) if rank * 10 // 16 == tenth]
            for name in rows:
                mine = [patch for patch in part
                        if (patch in seen.visible[b].tolist()) == (name == 'seen')]
                if mine:
                    rows[name].append(seen.error[b, mine].mean().item())
        for name, values in rows.items():
            found, expected = deciles[name][tenth], values and sum(values) / len(values)
            assert found == pytest.approx(expected, abs=1e-5) if values else found is None
    assert sum(deciles['importance']) > 0 and deciles['share_seen'][-1] > 0


# --- the whole diagnosis


def test_an_encoder_is_its_own_teacher(place, tmp_path):
    """Every layer agrees with itself fully, through another class and the file."""
    teacher = dict(type='milan_mm.EncoderTargetGenerator', checkpoint=str(place / 'milan.pth'),
                   normalize='student')
    run = load_pretraining(place / 'milan.pth')
    write_run(tmp_path / 'own.pth', milan_config('', target_generator=teacher),
              lambda built: built.backbone.load_state_dict(run.backbone.state_dict()))
    result = diagnose(load_subject(tmp_path / 'own.pth'), place / 'images', batch_size=8)
    assert result['cka']['rows'] == ['block 1', 'block 2', 'output']
    assert result['cka']['batches'] == 3
    for kind in ('cls', 'patches'):
        table = torch.tensor(result['cka'][kind])
        torch.testing.assert_close(table.diagonal(), torch.ones(3), atol=1e-4, rtol=0)
        assert table[0, 2] < 0.999
        assert result['cka']['random'][kind][2] < 0.999
        student, teacher = (result['spread'][tower][kind] for tower in ('student', 'teacher'))
        assert student[0]['effective_rank'] == pytest.approx(teacher[0]['effective_rank'], 1e-3)


def test_dead_units_are_found_in_an_encoder(place, tmp_path):

    def kill(model):
        with torch.no_grad():
            model.backbone.layers[1].ffn.layers[0][0].bias[:5] = -1e3
            model.backbone.layers[0].ffn.layers[0][0].bias[:3] = 1e3

    path = write_run(tmp_path / 'dead.pth', milan_config(place / 'teacher'), kill)
    subject = load_subject(path)
    before = [len(module._forward_hooks) + len(module._forward_pre_hooks)
              for module in subject.backbone.modules()]
    units = diagnose(subject, place / 'images', 16, 8)['units']
    assert units['never'][1] >= 5 and units['always'][0] >= 3
    assert units['units'] == [96, 96] and units['tokens'] == [16 * 17] * 2
    assert before == [len(module._forward_hooks) + len(module._forward_pre_hooks)
                      for module in subject.backbone.modules()]  # nothing is left behind


def test_diagnosis_is_repeatable(place):
    one, two = (diagnose(load_subject(place / 'milan.pth'), place / 'images', 16, 8)
                for _ in range(2))
    assert json.dumps(one) == json.dumps(two)


def test_diagnose_tool(place, tmp_path, capfd, look_at):
    folder = tmp_path / '<i>x'
    write_images(folder, per_class=8)
    (folder / 'red/red_0.png').write_bytes(b'\x89PNG cut off')
    out = tmp_path / 'out'
    done = run_tool_here(capfd, 'diagnose', place / 'milan.pth', '--data', folder, '--out', out,
                         '--batch-size', 8)
    assert done.returncode == 0, done.stderr
    result = json.loads((out / 'diagnosis.json').read_text())
    assert result['left_out'] == {} and result['images'] == 23
    assert result['cka']['columns'] == ['block 1', 'block 2', 'block 3', 'target']
    page = (out / 'index.html').read_text()
    assert page.count('<svg') == 2 + 1 + 2 + 2 + 1 + 2  # panels of the six measures
    assert 'Diagnosis of ' in page and '<h1>The output has ' in page
    assert 'red_0.png' in check_page(out / 'index.html', '<i>x').text
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ['diagnosis.json', 'index.html', *(f'{name}.png' for name in TITLES)])
    assert 'never on' in done.stdout and f'page: {out}' in done.stdout
    look_at(out / 'index.html')


def test_of_other_runs_what_there_is_is_measured(place, tmp_path, capfd):
    pixels = diagnose(load_subject(place / 'mae.pth'), place / 'images', 16, 8)
    assert pixels['deciles'] is None and 'no importance' in pixels['left_out']['deciles']
    assert pixels['cka']['columns'] == ['target'] and pixels['teacher'] == 'target'
    compared = diagnose(load_subject(place / 'mae.pth', teacher=str(place / 'teacher')),
                        place / 'images', 16, 8)
    assert compared['teacher'] == 'CLIP' and compared['deciles']['trained_on'] == 'masked'
    assert compared['cka']['columns'] == ['block 1', 'block 2', 'block 3', 'target']
    done = run_tool_here(capfd, 'diagnose', place / 'encoder.safetensors', '--data',
                         place / 'images', '--out', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    assert 'the encoder alone' in done.stdout and 'cka: left out' in done.stdout
    alone = json.loads((tmp_path / 'out/diagnosis.json').read_text())
    assert sorted(alone['left_out']) == ['cka', 'deciles'] and alone['spread'].keys() == {'student'}
    assert not (tmp_path / 'out/cka.png').exists()


def test_an_encoder_alone_is_compared_with_a_clip(place):
    subject = load_subject(place / 'encoder.safetensors', teacher=str(place / 'teacher'))
    result = diagnose(subject, place / 'images', 16, 8)
    assert result['cka']['columns'][-1] == 'target' and list(result['left_out']) == ['deciles']


def test_a_pickle_is_read_where_it_is_trusted(place, tmp_path):
    content = torch.load(place / 'milan.pth', weights_only=True)
    torch.save(dict(content, beside=date.today()), tmp_path / 'x.pth')  # more than tensors
    with pytest.raises(MilanError, match='--trust-checkpoint'):
        load_subject(tmp_path / 'x.pth')
    assert load_subject(tmp_path / 'x.pth', trust=True).model.predicts


@pytest.mark.parametrize('arguments, words', [
    (['nothing.pth'], 'no such'),
    (['milan.pth', '--num-images', 4], 'at least 8'),
    (['milan.pth', '--teacher', 'nowhere'], 'not found'),
    (['milan.pth', '--config', 'nothing.py'], 'no such config'),
    (['encoder.safetensors', '--cfg-options', 'a=1'], 'not the config of a pretraining'),
])
def test_mistakes_are_told(place, capfd, monkeypatch, arguments, words):
    monkeypatch.chdir(place)
    done = run_tool_here(capfd, 'diagnose', *arguments, '--data', 'images', '--out', 'never')
    assert done.returncode == 2 and words in done.stderr and 'Traceback' not in done.stderr
    assert not (place / 'never').exists()


# --- zero-shot


def test_student_feature_is_the_heads_map_of_its_cls(place):
    model = load_pretraining(place / 'milan.pth')
    inputs = torch.randn(2, 3, 32, 32)
    features = zero_shot.image_features(model, inputs, torch.tensor([1, 2]))
    neck = model.neck
    cls = neck.decoder_embed(model.backbone(inputs)[-1][:, 0])  # its position is zero
    torch.testing.assert_close(features['student'], neck.decoder_pred(neck.decoder_norm(cls)),
                               atol=1e-5, rtol=1e-4)
    masks = model.mask_generator(model.target_generator(inputs).importance, torch.tensor([1, 2]))
    cls = neck.decoder_embed(model.backbone(inputs, masks.visible)[:, 0])
    torch.testing.assert_close(features['student_masked'],
                               neck.decoder_pred(neck.decoder_norm(cls)), atol=1e-5, rtol=1e-4)


def test_maes_decoder_takes_a_whole_image_too(place):
    model = load_pretraining(place / 'mae.pth')
    everything = torch.arange(16).expand(1, -1)
    masks = MaskIds(everything, everything[:, :0])
    assert model.neck(model.backbone(torch.randn(1, 3, 32, 32), masks.visible), masks).shape == (
        1, 17, 192)


def test_zero_shot_is_open_clips_own(place, clip, tmp_path, capfd):
    (tmp_path / 'names.json').write_text(json.dumps(dict(blue='sky', green='grass', red='fire')))
    (tmp_path / 'prompts.txt').write_text('a photo of {}\n\n{}, drawn\n')
    out, saved = tmp_path / 'out.json', tmp_path / 'texts.safetensors'
    common = [place / 'milan.pth', '--data', place / 'images', '--out', out]
    done = run_tool_here(capfd, 'zero_shot', *common, '--prompts', tmp_path / 'prompts.txt',
                         'my {}', '--names', tmp_path / 'names.json', '--save-text', saved)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result['prompts'] == ['a photo of {}', '{}, drawn', 'my {}']
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    model = load_pretraining(place / 'milan.pth')
    folder = zero_shot.labelled_folder(model, place / 'images')
    _, pixels = next(iter(ImageStream(folder, 24)))
    inputs = model.data_preprocessor(dict(inputs=pixels))['inputs']
    with torch.no_grad():
        words = [clip.encode_text(tokenizer([f'a photo of {n}', f'{n}, drawn', f'my {n}']),
                                  normalize=True).mean(0) for n in ('sky', 'grass', 'fire')]
        directions = F.normalize(torch.stack(words), dim=-1)
        named = (clip.encode_image(inputs, normalize=True) @ directions.T).argmax(1)
        student = model.neck(model.backbone(inputs, torch.arange(16).expand(24, -1)), MaskIds(
            torch.arange(16).expand(24, -1), torch.empty(24, 0, dtype=torch.long)))[:, 0]
        by_student = (F.normalize(student, dim=-1) @ directions.T).argmax(1)
    truth = torch.arange(3).repeat_interleave(8)
    assert result['teacher']['top1'] == pytest.approx(100 * (named == truth).float().mean().item())
    assert result['student']['top1'] == pytest.approx(
        100 * (by_student == truth).float().mean().item())
    assert result['agreement'] == pytest.approx(100 * (by_student == named).float().mean().item())
    assert result['chance'] == pytest.approx(100 / 3)
    torch.testing.assert_close(load_file(saved)['directions'], directions)
    assert 'teacher' in done.stdout and '33.3 %' in done.stdout
    # with the texts kept, no text tower is needed; an image tower is all the teacher has
    done = run_tool_here(capfd, 'zero_shot', *common, '--text', saved)
    again = json.loads(out.read_text())
    assert done.returncode == 0 and again['student'] == result['student']


def test_accuracy_by_hand():
    scores = torch.eye(6)[[0, 1, 1, 5]] + torch.arange(6) * 0.01
    result = zero_shot.accuracy(scores, torch.tensor([0, 1, 2, 0]))
    assert result['top1'] == 50 and result['top1_error'] == 25
    assert result['per_class'] == [50, 100, 0, None, None, None] and result['balanced'] == 50
    assert result['top5'] == 75  # of the last, class 0 is the sixth


def test_texts_are_kept_by_name(tmp_path):
    texts = text.Texts(('a', 'b'), ('{}', ), torch.eye(2), 'here')
    text.save_texts(texts, tmp_path / 't.safetensors')
    turned = text.read_texts(tmp_path / 't.safetensors', ('b', 'a'))
    assert turned.directions.tolist() == [[0, 1], [1, 0]] and turned.source == 'here'
    with pytest.raises(MilanError, match="lacks 1 classes.*'c'"):
        text.read_texts(tmp_path / 't.safetensors', ('a', 'c'))
    save_file(dict(x=torch.zeros(1)), tmp_path / 'other.safetensors')
    with pytest.raises(MilanError, match='holds no texts'):
        text.read_texts(tmp_path / 'other.safetensors', ('a', ))


def test_texts_of_another_clip_are_refused(place):
    model = load_pretraining(place / 'milan.pth')
    folder = zero_shot.labelled_folder(model, place / 'images')
    texts = text.Texts(('blue', 'green', 'red'), ('{}', ), torch.eye(3), 'another')
    with pytest.raises(MilanError, match='3 wide'):
        zero_shot.zero_shot(model, folder, texts)


def test_a_tower_without_texts_is_told(place, clip, tmp_path):
    folder = tmp_path / 'image only'
    folder.mkdir()
    save_file({k: v for k, v in clip.state_dict().items() if k.startswith('visual.')},
              folder / 'open_clip_model.safetensors')
    (folder / 'open_clip_config.json').write_text(json.dumps(dict(model_cfg=CLIP)))
    with pytest.raises(MilanError, match='only an image tower'):
        text.load_text_tower(str(folder))
    with pytest.raises(MilanError, match='no text tower'):
        text.load_text_tower(str(tmp_path))
    with pytest.raises(MilanError, match='knows no model'):
        text.load_text_tower('ViT-none:openai')


@pytest.mark.parametrize('arguments, words', [
    (['milan.pth', '--prompts', 'a thing'], 'has no {}'),
    (['milan.pth', '--names', 'milan.pth'], 'no readable JSON'),
    (['mae.pth'], 'PixelTargetGenerator'),
    (['encoder.safetensors'], '--config'),
    (['milan.pth', '--text', 'teacher/open_clip_config.json'], '.safetensors'),
])
def test_zero_shot_mistakes_are_told(place, capfd, monkeypatch, arguments, words):
    monkeypatch.chdir(place)
    done = run_tool_here(capfd, 'zero_shot', *arguments, '--data', 'images')
    assert done.returncode == 2 and words in done.stderr and 'Traceback' not in done.stderr
