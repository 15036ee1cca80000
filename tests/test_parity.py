# SPDX-License-Identifier: Apache-2.0
"""The recorded reference step, and MAE against mmpretrain's own."""
import re

import pytest
import torch
from conftest import ROOT, TINY_VIT, run_tool
from mmpretrain.registry import MODELS as MMPRETRAIN
from safetensors.torch import load_file, save_file

from milan_mm.evaluation.parity import TOLERANCE, parity_errors, relative_error
from milan_mm.registry import MODELS
from milan_mm.structures import MaskIds


def test_golden_step(golden):
    errors = parity_errors(golden)
    assert len(errors) == 68  # 4 outputs, 64 gradients
    assert max(errors.values()) < 1e-5
    # The README says how large; the last digits depend on processor and threads.
    said = float(re.search(r'by at most ([\d.]+e-\d+)', (ROOT / 'README.md').read_text())[1])
    assert said / 2 < max(errors.values()) < said * 2


@pytest.mark.parametrize('key', [
    'clip.visual.transformer.resblocks.1.mlp.c_fc.weight', 'student.norm.weight', 'loss',
    'grad.mask_token', 'cls_attention'
])
def test_parity_notices_a_change(golden, tmp_path, key):
    tensors = load_file(golden)
    from safetensors import safe_open
    with safe_open(str(golden), 'pt') as file:
        metadata = file.metadata()
    tensors[key] = tensors[key] * 1.01 + 1e-3
    save_file(tensors, tmp_path / 'changed.safetensors', metadata)
    assert max(parity_errors(tmp_path / 'changed.safetensors').values()) > TOLERANCE


def test_parity_tool_exit_codes(golden, tmp_path, run_here):
    assert 'grad mask_token' in run_tool('parity.py', golden)
    (tmp_path / 'x.safetensors').write_bytes(b'nonsense')
    out = run_here('parity.py', tmp_path / 'x.safetensors', code=2)
    assert 'error:' in out and 'Traceback' not in out


def test_relative_error_of_nan_is_infinite():
    assert relative_error(torch.tensor([float('nan')]), torch.ones(1)) == float('inf')


@pytest.mark.parametrize('norm_pix', [True, False])
def test_mae_is_mmpretrains_mae(norm_pix):
    """The same weights, masks and images give MAE's loss and gradients to 1e-5."""
    torch.manual_seed(0)
    theirs = MMPRETRAIN.build(dict(
        type='MAE',
        backbone=dict(type='MAEViT', arch=dict(TINY_VIT), img_size=32, patch_size=8,
                      mask_ratio=0.75),
        neck=dict(type='MAEPretrainDecoder', num_patches=16, patch_size=8, embed_dim=48,
                  decoder_embed_dim=32, decoder_depth=2, decoder_num_heads=4),
        head=dict(type='MAEPretrainHead', norm_pix=norm_pix, patch_size=8,
                  loss=dict(type='PixelReconstructionLoss', criterion='L2'))))
    theirs.init_weights()
    ours = MODELS.build(dict(
        type='milan_mm.MILAN',
        backbone=dict(type='milan_mm.MaskedVisionTransformer', arch=dict(TINY_VIT), img_size=32,
                      patch_size=8),
        target_generator=dict(type='milan_mm.PixelTargetGenerator', patch_size=8,
                              norm_pix=norm_pix),
        mask_generator=dict(type='milan_mm.RandomMaskGenerator'),
        neck=dict(type='milan_mm.MAEDecoder', decoder_embed_dim=32, decoder_depth=2,
                  decoder_num_heads=4),
        head=dict(type='milan_mm.ReconstructionHead', tokens='masked',
                  loss=dict(type='milan_mm.MSEReconstructionLoss'))))
    # mmpretrain lays the fixed positions out column by column, the published code row by row;
    # with the weights theirs are loaded too.
    for key, value in theirs.state_dict().items():
        if key.endswith('pos_embed'):
            own = ours.state_dict()[key][:, 1:].unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)
            assert torch.allclose(own, value[:, 1:], atol=1e-6)
    ours.load_state_dict(theirs.state_dict(), strict=True)

    images = torch.randn(3, 3, 32, 32)
    drawn = {}
    their_masking = theirs.backbone.random_masking

    def recorded(x, ratio):
        out = their_masking(x, ratio)
        ids = torch.argsort(out[2], dim=1)
        drawn['ids'] = MaskIds(ids[:, :4], ids[:, 4:])
        return out

    theirs.backbone.random_masking = recorded
    their_loss = theirs.loss(images, None)['loss']
    ours.mask_generator.forward = lambda importance, keys=None: drawn['ids']
    our_loss = ours.loss(images)['loss']
    their_loss.backward()
    our_loss.backward()
    assert relative_error(our_loss, their_loss.detach()) < 1e-5
    grads = {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    assert set(grads) == {n for n, p in ours.named_parameters() if p.grad is not None}
    for name, parameter in ours.named_parameters():
        if parameter.grad is not None:
            assert relative_error(parameter.grad, grads[name]) < 1e-5, name
