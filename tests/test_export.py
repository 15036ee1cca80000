# SPDX-License-Identifier: Apache-2.0
"""The student in others' naming: bit for bit the same weights."""
import pytest
import torch
from conftest import TINY_VIT, milan_config
from mmpretrain.models import VisionTransformer
from safetensors.torch import load_file

import milan_mm
from milan_mm.checkpoints.handover import load_pretrained
from milan_mm.checkpoints.io import read_checkpoint
from milan_mm.checkpoints.naming import to_openmmlab, to_published
from milan_mm.engine.hooks import describe_encoder
from milan_mm.errors import MilanError
from milan_mm.registry import MODELS


@pytest.fixture(params=['PromptingDecoder', 'MAEDecoder'])
def student(request, teacher_folder, tmp_path):
    torch.manual_seed(0)
    config = milan_config(teacher_folder)
    config['neck']['type'] = f'milan_mm.{request.param}'
    model = MODELS.build(config)
    model.init_weights()
    checkpoint = dict(state_dict=model.state_dict(), meta=dict(milan_mm=describe_encoder(model)))
    torch.save(checkpoint, tmp_path / 'epoch_1.pth')
    return model, tmp_path


def test_naming_goes_there_and_back(student):
    model, _ = student
    state = model.state_dict()
    published = to_published(state)
    assert 'blocks.1.mlp.fc2.weight' in published and 'decoder_norm.bias' in published
    assert 'decoder_blocks.0.norm1.weight' in published
    back = to_openmmlab(published)
    assert set(back) == set(state) and all(torch.equal(back[k], state[k]) for k in state)


@pytest.mark.parametrize('ending', ['pth', 'safetensors'])
def test_authors_naming_can_start_a_run(student, teacher_folder, ending, run_here):
    model, folder = student
    out = run_here('convert_checkpoint.py', folder / 'epoch_1.pth', folder / f'a.{ending}', '--to',
                   'authors')
    assert f'{len(model.state_dict())} tensors' in out
    config = milan_config(teacher_folder)
    config['neck']['type'] = f'milan_mm.{type(model.neck).__name__}'
    other = MODELS.build(config)
    words = load_pretrained(other, folder / f'a.{ending}')
    assert '30 of 30 encoder tensors (100 %)' in words and 'decoder tensors' in words
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in other.state_dict().items())


def test_mmpretrains_own_vit_loads_it_strictly(student, run_here):
    model, folder = student
    run_here('convert_checkpoint.py', folder / 'epoch_1.pth', folder / 'm.pth', '--to',
             'mmpretrain')
    state = torch.load(folder / 'm.pth', weights_only=True)['state_dict']
    vit = VisionTransformer(arch=dict(TINY_VIT), img_size=32, patch_size=8, out_type='raw')
    vit.load_state_dict({k.removeprefix('backbone.'): v for k, v in state.items()}, strict=True)
    vit.eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        want = milan_mm.get_model(folder / 'epoch_1.pth')(images)
        assert torch.equal(vit(images)[0][:, 1:], want.patches)


def test_description_survives_in_safetensors(student, run_here):
    model, folder = student
    run_here('convert_checkpoint.py', folder / 'epoch_1.pth', folder / 'm.safetensors', '--to',
             'mmpretrain')
    assert len(load_file(folder / 'm.safetensors')) == 30  # 29 and the positions
    assert milan_mm.get_model(folder / 'm.safetensors').backbone.layers[0].attn.num_heads == 4


@pytest.mark.parametrize('change, words', [
    (lambda s: s.pop('backbone.layers.1.attn.qkv.bias'), 'missing.*layers.1.attn.qkv.bias'),
    (lambda s: s.update({'backbone.oddity': torch.ones(1)}), 'left over.*oddity'),
    (lambda s: s.update({'backbone.ln1.bias': torch.ones(3)}), r'ln1.bias is \(3,\)'),
])
def test_every_encoder_tensor_is_accounted_for(student, teacher_folder, change, words):
    model, folder = student
    checkpoint = read_checkpoint(folder / 'epoch_1.pth')
    change(checkpoint['state_dict'])
    torch.save(checkpoint, folder / 'changed.pth')
    with pytest.raises(MilanError, match=words):
        load_pretrained(MODELS.build(milan_config(teacher_folder)), folder / 'changed.pth')


def test_no_student_no_export(tmp_path, run_here):
    torch.save(dict(w=torch.ones(1)), tmp_path / 'x.pth')
    out = run_here('convert_checkpoint.py', tmp_path / 'x.pth', tmp_path / 'y.pth', '--to',
                   'authors', code=2)
    assert 'holds no encoder' in out and not (tmp_path / 'y.pth').exists()


def test_pretraining_configs_have_no_test_set(student, run_here):
    out = run_here('test.py', 'configs/milan/vitb_pretrain.py', student[1] / 'epoch_1.pth', code=2)
    assert 'milan eval' in out
