# SPDX-License-Identifier: Apache-2.0
"""Models that run without this package: the same numbers."""
import json

import pytest
import timm
import torch
from conftest import milan_config
from mmengine.config import Config
from test_foreign_vits import dinov3, timm_vit
from test_predict import CONFIGS
from transformers import AutoModel

import milan_mm
from milan_mm import MilanError
from milan_mm.checkpoints.published import write_folder
from milan_mm.checkpoints.spec import _described_spec, describe_spec
from milan_mm.checkpoints.vit import read_vit
from milan_mm.cli.main import main
from milan_mm.engine.hooks import describe_encoder
from milan_mm.inference.tasks import build_model
from milan_mm.registry import MODELS


@pytest.fixture
def run(teacher_folder, tmp_path):
    """A checkpoint of MILAN."""
    torch.manual_seed(0)
    model = MODELS.build(milan_config(teacher_folder))
    model.init_weights()
    described = dict(describe_encoder(model), crop_ratio=.9)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(milan_mm=described)),
               tmp_path / 'epoch_1.pth')
    return tmp_path / 'epoch_1.pth'


@torch.no_grad()
def tokens(path, images):
    out = milan_mm.get_model(path)(images)
    return torch.cat([out.cls[:, None], out.patches], dim=1)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.onedl_only
def test_onnx_of_any_batch_and_in_eight_bits(run, image_folder, tmp_path, capsys):
    ort = pytest.importorskip('onnxruntime')
    assert main(['export', str(run), str(tmp_path / 'e.onnx'), '--to', 'onnx', '--quantize',
                 '--data', str(image_folder)]) == 0
    out = capsys.readouterr().out
    assert 'images (batch, 3, 32, 32) to cls, pooled, patches; differs' in out
    assert out.count('% of') == 2 and 'e_int8.onnx' in out
    images = torch.randn(5, 3, 32, 32)
    session = ort.InferenceSession(tmp_path / 'e.onnx', providers=['CPUExecutionProvider'])
    cls, _, patches = session.run(None, dict(images=images.numpy()))
    want = tokens(run, images)
    torch.testing.assert_close(torch.tensor(cls), want[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.tensor(patches), want[:, 1:], rtol=1e-4, atol=1e-4)
    told = session.get_modelmeta().custom_metadata_map
    assert len(json.loads(told['pixel_mean'])) == 3 and json.loads(told['crop_ratio']) == .9


def test_which_gelu_is_not_made_up(run, tmp_path):
    """A file of CLIP does not say; what was converted from it said GELU for certain."""
    vit = read_vit(run)
    vit = vit._replace(spec=vit.spec._replace(quick_gelu=None))
    told = _described_spec(vit.encoder, describe_spec(vit.spec), 'a.pth')
    assert told.quick_gelu is None and told == vit.spec


def test_one_mean_for_all_channels_is_described(teacher_folder, tmp_path):
    """Trained, and no tool could read the checkpoint."""
    model = MODELS.build(milan_config(
        teacher_folder, data_preprocessor=dict(mean=[127.5], std=[63.75])))
    torch.save(dict(state_dict=model.state_dict(), meta=dict(milan_mm=describe_encoder(model))),
               tmp_path / 'a.pth')
    assert milan_mm.get_model(tmp_path / 'a.pth').pixel_mean.flatten().tolist() == [127.5] * 3


def test_weights_are_an_encoders_choice(run, tmp_path, capsys):
    assert main(['export', str(run), str(tmp_path / 'a.onnx'), '--to', 'onnx', '--config',
                 'milan_mm::classification/own_linear.py', '--weights', 'raw']) == 2
    assert '--weights chooses for an encoder' in capsys.readouterr().err


@pytest.mark.onedl_only
def test_torch_export(run, tmp_path, capsys):
    assert main(['export', str(run), str(tmp_path / 'e.pt2'), '--to', 'torch-export']) == 0
    images = torch.randn(3, 3, 32, 32)
    cls, _, _ = torch.export.load(tmp_path / 'e.pt2').module()(images)
    close(cls, tokens(run, images)[:, 0])


@pytest.mark.parametrize('form', ['onnx', 'torch-export'])
def test_an_old_torch_is_named(form, run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.5.1+cpu')
    assert main(['export', str(run), str(tmp_path / 'e'), '--to', form]) == 2
    assert 'need PyTorch 2.6 or later, and this is 2.5.1+cpu' in capsys.readouterr().err
    assert not (tmp_path / 'e').exists()


def test_folders_of_timm_and_transformers(run, tmp_path, capsys):
    images = torch.randn(2, 3, 32, 32)
    assert main(['export', str(run), str(tmp_path / 'timm'), '--to', 'timm']) == 0
    vit = timm.create_model(f'local-dir:{tmp_path}/timm', pretrained=True).eval()
    with torch.no_grad():
        close(vit.forward_features(images), tokens(run, images))
    assert vit.pretrained_cfg['crop_pct'] == .9
    back, first = milan_mm.get_model(tmp_path / 'timm'), milan_mm.get_model(run)
    with torch.no_grad():
        close(tokens(tmp_path / 'timm', images), tokens(run, images))
    assert back.crop_ratio == .9 and back.img_size == first.img_size
    close(back.pixel_mean, first.pixel_mean)
    close(back.pixel_std, first.pixel_std)
    assert main(['push-to-hub', str(run), 'me/mine', '--to', 'hf', '--out',
                 str(tmp_path / 'hf')]) == 0
    assert f'upload me/mine {tmp_path}/hf' in capsys.readouterr().out
    with torch.no_grad():
        close(AutoModel.from_pretrained(tmp_path / 'hf', add_pooling_layer=False).eval()(
            images).last_hidden_state, tokens(run, images))
    assert milan_mm.get_model(tmp_path / 'hf').crop_ratio == .9
    card = (tmp_path / 'hf/README.md').read_text()
    assert 'library_name: transformers' in card and '| width, blocks, heads | 48, 2, 4 |' in card


@pytest.mark.parametrize('options', [
    dict(reg_tokens=4, no_embed_class=True, init_values=.5, qkv_bias=False),
    dict(class_token=False, global_pool='avg', fc_norm=False)], ids=['registers', 'no CLS'])
def test_timms_variants_go_back(options, tmp_path):
    vit = timm_vit(**options)
    torch.save(vit.state_dict(), tmp_path / 'vit.pth')
    write_folder(tmp_path / 'vit.pth', tmp_path / 'timm', 'timm')
    back = timm.create_model(f'local-dir:{tmp_path}/timm', pretrained=True).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        close(back.forward_features(images), vit.forward_features(images))


def test_what_cannot_be_exported_says_so(run, tmp_path):
    torch.save(dinov3().state_dict(), tmp_path / 'vit.pth')
    with pytest.raises(MilanError, match='rotary positions.*--to onnx'):
        write_folder(tmp_path / 'vit.pth', tmp_path / 'timm', 'timm')
    with pytest.raises(MilanError, match='no place for'):
        write_folder(tmp_path / 'vit.pth', tmp_path / 'hf', 'hf')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['epoch_1.pth', 'vit.pth']
    assert main(['export', str(run), str(tmp_path / 'x'), '--to', 'hf', '--quantize']) == 2


@pytest.mark.onedl_only
@pytest.mark.slow
@pytest.mark.parametrize('task', ['classification', 'segmentation', 'detection'])
def test_finetuned_models(task, image_folder, tmp_path, capsys):
    cfg = Config(CONFIGS[task])
    classes = ['group 0', 'group 1', 'group 2']
    model = build_model(cfg, classes)
    cfg.dump(tmp_path / 'config.py')
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=classes))),
               tmp_path / 'model.pth')
    words = ['export', str(tmp_path / 'model.pth'), str(tmp_path / 'm.onnx'), '--to', 'onnx',
             '--config', str(tmp_path / 'config.py')]
    if task == 'classification':
        words += ['--quantize', '--data', str(image_folder)]
    assert main(words) == (2 if task == 'detection' else 0)
    told = capsys.readouterr()
    assert ('mmdeploy' in told.err) if task == 'detection' else ('to logits' in told.out)


@pytest.mark.onedl_only
@pytest.mark.slow
def test_rotary_positions_allow_any_size(tmp_path, capsys):
    torch.save(dinov3().state_dict(), tmp_path / 'vit.pth')
    assert main(['export', str(tmp_path / 'vit.pth'), str(tmp_path / 'e.onnx'), '--to', 'onnx',
                 '--dynamic-size', '--img-size', '32', '48']) == 0
