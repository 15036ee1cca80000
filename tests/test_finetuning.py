# SPDX-License-Identifier: Apache-2.0
"""Finetuning in part: frozen blocks, LoRA, an average of the weights, blocks computed twice."""
import sys

import numpy as np
import pytest
import torch
from conftest import TINY_VIT
from helpers_tasks import LOADERS, small_classifier
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

from milan_mm.checkpoints.vit import read_vit
from milan_mm.cli.main import main
from milan_mm.errors import MilanError
from milan_mm.inference.tasks import load_task_model
from milan_mm.models.finetuning import merge_layers

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
KINDS = dict(
    plain=dict(type='milan_mm.MaskedVisionTransformer', out_type='featmap', positions='learned',
               num_registers=1),
    windowed=dict(type='milan_mm.WindowedVisionTransformer', window_size=2))


def backbone(kind, **options):
    torch.manual_seed(0)
    model = MODELS.build(dict(KINDS[kind], arch=TINY_VIT, img_size=32, patch_size=8, **options))
    model.init_weights()
    return model


def gradients(model):
    torch.manual_seed(1)
    model.train()(IMAGES)[-1].square().sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize('kind', KINDS)
def test_blocks_computed_twice_give_the_same_gradients(kind):
    once, twice = (gradients(backbone(kind, with_cp=cp, drop_path_rate=.5)) for cp in (False, True))
    assert once.keys() == twice.keys() and len(once) > 20
    for name, gradient in once.items():
        torch.testing.assert_close(twice[name], gradient, rtol=0, atol=0)


def test_the_visible_patches_too():
    visible = torch.arange(8).expand(2, 8)
    kept = []  # numbers that stay in memory until the backward pass

    def keep(value):
        kept[-1] += 0 if value.is_leaf else value.numel()
        return value

    for cp in (False, True):
        model = backbone('plain', with_cp=cp).train()
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            model(IMAGES, visible).sum()
    assert 0 < kept[1] < kept[0] / 4


@pytest.mark.parametrize('kind', KINDS)
def test_frozen_blocks_get_no_gradient_and_drop_nothing(kind):
    some, whole = (backbone(kind, frozen_stages=n, drop_path_rate=.9) for n in (1, 2))
    found = set(gradients(some))
    assert found and all(n.startswith('layers.1.') or n.startswith('ln1') for n in found)
    assert not [n for n, p in whole.named_parameters() if p.requires_grad]
    whole.train()
    torch.testing.assert_close(whole(IMAGES)[-1], whole(IMAGES)[-1], rtol=0, atol=0)
    with pytest.raises(MilanError, match='the ViT has 2 blocks; 2 freezes the whole'):
        backbone(kind, frozen_stages=3)


@pytest.mark.parametrize('kind', KINDS)
def test_lora_starts_as_the_plain_model_trains_its_matrices_and_merges(kind):
    plain, lora = backbone(kind).eval(), backbone(kind, lora=dict(rank=2, alpha=4)).eval()
    lora.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(lora(IMAGES)[-1], plain(IMAGES)[-1])
    new = {name for name in lora.state_dict() if name not in plain.state_dict()}
    assert plain.state_dict().keys() == lora.state_dict().keys() - new
    assert {name.rpartition('attn.')[2] for name in new} == {
        f'{layer}.{part}' for layer in ('qkv', 'proj')
        for part in ('lora_down.weight', 'lora_up.weight', 'scaling')}
    trained = {name for name, p in lora.named_parameters() if p.requires_grad}
    rel_pos = {name for name in trained if 'rel_pos' in name}
    assert trained - rel_pos == {n for n in new if not n.endswith('scaling')}
    assert len(rel_pos) == (4 if kind == 'windowed' else 0)
    with torch.no_grad():
        for name, parameter in lora.named_parameters():
            if 'lora_up' in name:
                parameter.normal_(std=.1)
    expected = lora(IMAGES)[-1]
    assert (expected - plain(IMAGES)[-1]).abs().max() > .01
    assert merge_layers(lora) == 4 and lora.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(lora(IMAGES)[-1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('options, words', [
    (dict(lora=dict(rank=0)), 'rank is a whole number from 1'),
    (dict(lora=dict(rank=2, ranks=3)), 'lora takes alpha, drop_rate, rank, targets'),
    (dict(lora=dict(rank=2, targets=['q'])), 'names no linear layer of the blocks; they have attn'),
    (dict(lora=dict(rank=2), frozen_stages=1), 'leave frozen_stages=1 out')])
def test_options_that_cannot_be(options, words):
    with pytest.raises(MilanError, match=words):
        backbone('plain', **options)


def test_matrices_without_the_weights_are_refused(tmp_path):
    """As mmpretrain's LoRAModel saves them."""
    state = {f'backbone.module.{name}': value
             for name, value in backbone('plain', lora=dict(rank=2)).state_dict().items()
             if 'lora_' in name}
    torch.save(dict(state_dict=state), tmp_path / 'lora.pth')
    with pytest.raises(MilanError, match='LoRA matrices .* without the weights.*merge_lora_weight'):
        read_vit(tmp_path / 'lora.pth')


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
    root = tmp_path_factory.mktemp('labelled')
    rng = np.random.default_rng(0)
    for part, count in (('train', 8), ('val', 3)):
        for i, name in enumerate(('rot', 'blau')):
            (root / part / name).mkdir(parents=True)
            for j in range(count):
                pixels = rng.integers(0, 90, (40, 40, 3), dtype=np.uint8)
                pixels[..., 2 * i] += 120
                Image.fromarray(pixels).save(root / part / name / f'{j}.png')
    return root


def train(folder, data, *options):
    config = small_classifier(folder / 'mine.py', 'finetune')
    assert main(['train', str(config), '--data-root', str(data), '--work-dir', str(folder),
                 '--epochs', '1', '--cfg-options', *LOADERS, 'train_dataloader.batch_size=8',
                 'optim_wrapper.accumulative_counts=1', 'optim_wrapper.optimizer.lr=1.0',
                 *options]) == 0
    return config, torch.load(folder / 'epoch_1.pth', weights_only=True)


def test_lora_by_the_command_line(labelled, tmp_path, capsys):
    """From a file, through a training, into the encoder's plain weights."""
    start = backbone('plain', num_registers=0)
    torch.save(start.state_dict(), tmp_path / 'start.pth')
    config, saved = train(
        tmp_path, labelled, f'model.backbone.init_cfg.checkpoint={tmp_path / "start.pth"}',
        'model.backbone.lora.rank=4', 'model.backbone.with_cp=True',
        'default_hooks.ema.type=EMAHook', 'default_hooks.ema.momentum=0.5')
    averaged = saved['state_dict']
    raw = {k.removeprefix('module.'): v for k, v in saved['ema_state_dict'].items()}
    moved = {key for key, value in raw.items() if key.startswith('backbone.') and not torch.equal(
        value, start.state_dict().get(key.removeprefix('backbone.'), torch.tensor(float('nan'))))}
    assert {key.split('.', 4)[-1] for key in moved if 'layers' in key} == {
        f'{layer}.{part}' for layer in ('qkv', 'proj')
        for part in ('lora_down.weight', 'lora_up.weight', 'scaling')}
    assert {key for key in moved if 'layers' not in key} == {'backbone.ln2.weight',
                                                             'backbone.ln2.bias'}
    up = 'backbone.layers.1.attn.qkv.lora_up.weight'
    assert raw[up].any() and averaged[up].any() and not torch.equal(raw[up], averaged[up])
    cfg = Config.fromfile(config)
    cfg.merge_from_dict({'model.backbone.lora': dict(rank=4)})
    model = load_task_model(cfg, tmp_path / 'epoch_1.pth')
    encoder = read_vit(tmp_path / 'epoch_1.pth')
    assert 'LoRA merged into 4 weights' in encoder.unwrapped and 'averaged' in encoder.unwrapped
    name = 'layers.1.attn.qkv.weight'
    torch.testing.assert_close(
        encoder.encoder[name], averaged[f'backbone.{name}'] + averaged[up]
        @ averaged[up.replace('up', 'down')], rtol=0, atol=1e-6)
    torch.testing.assert_close(model.model.backbone.state_dict()[name], encoder.encoder[name])


def test_frozen_by_the_command_line(labelled, tmp_path):
    start = backbone('plain', num_registers=0)
    torch.save(start.state_dict(), tmp_path / 'start.pth')
    _, saved = train(
        tmp_path, labelled, f'model.backbone.init_cfg.checkpoint={tmp_path / "start.pth"}',
        'model.backbone.frozen_stages=1')
    moved = {key for key, value in start.state_dict().items()
             if not torch.equal(value, saved['state_dict'].get(f'backbone.{key}', value))}
    assert moved and all(key.startswith('layers.1.') for key in moved)


def test_a_logger_that_is_not_installed_says_what_to_install(labelled, tmp_path, capsys,
                                                             monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', None)  # an import of it fails, as without it
    config = small_classifier(tmp_path / 'mine.py', 'finetune')
    assert main(['train', str(config), '--data-root', str(labelled), '--work-dir', str(tmp_path),
                 '--cfg-options', *LOADERS, 'visualizer.vis_backends.1.type=WandbVisBackend']) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith('error: ') and 'pip install wandb' in last
    assert not list(tmp_path.glob('*.pth'))
