# SPDX-License-Identifier: Apache-2.0
"""The algorithm: what it keeps out of training, which parts fit, that it compiles."""
import copy
import itertools

import pytest
import torch
from conftest import ROOT, TINY_VIT, milan_config
from mmengine.config import ConfigDict
from mmengine.optim import build_optim_wrapper
from torch._dynamo.utils import counters

from milan_mm.engine.train import compile_loss
from milan_mm.errors import MilanError
from milan_mm.registry import MODELS
from milan_mm.structures import MaskIds


@pytest.fixture
def milan(teacher_folder):
    torch.manual_seed(0)
    model = MODELS.build(milan_config(teacher_folder))
    model.init_weights()
    return model


def keys(n):
    return torch.arange(n) * 7919


def test_teacher_is_no_part_of_the_model(milan):
    names = [n for n, _ in milan.named_modules()] + list(milan.state_dict()) + [
        n for n, _ in milan.named_parameters()] + [n for n, _ in milan.named_buffers()]
    assert not [n for n in names if 'target' in n or 'tower' in n or 'visual' in n]
    assert {n.split('.')[0] for n in milan.state_dict()} == {'backbone', 'neck'}


def test_teacher_is_bit_identical_after_training(milan):
    before = copy.deepcopy(milan.target_generator.state_dict())
    student = copy.deepcopy(milan.state_dict())
    milan.train()
    optimizer = torch.optim.AdamW(milan.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        milan.loss(torch.randn(4, 3, 32, 32))['loss'].backward()
        optimizer.step()
    after = milan.target_generator.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    moved = [k for k, v in student.items() if not torch.equal(milan.state_dict()[k], v)]
    fixed = {k for k in student if 'pos_embed' in k}
    assert set(moved) == set(student) - fixed
    assert not any(m.training for m in milan.target_generator.modules())


def test_init_weights_leaves_the_teacher_alone(teacher_folder):
    model = MODELS.build(milan_config(teacher_folder))
    before = copy.deepcopy(model.target_generator.state_dict())
    model.init_weights()
    assert all(torch.equal(model.target_generator.state_dict()[k], v) for k, v in before.items())
    assert model.backbone.layers[0].attn.qkv.bias.abs().max() == 0
    assert 0 < model.neck.mask_token.std() < 0.04


def test_teacher_moves_along(milan):
    assert milan.double().target_generator.tower.visual.conv1.weight.dtype == torch.float64
    assert torch.isfinite(milan.loss(torch.randn(2, 3, 32, 32).double())['loss'])


def test_losses_say_what_the_log_shows(milan):
    losses = milan.loss(torch.randn(4, 3, 32, 32), sample_keys=keys(4))
    assert set(losses) == {'loss', 'cos_visible', 'cos_masked', 'importance_seen'}
    images = torch.randn(4, 3, 32, 32)
    once, again = (milan.loss(images, sample_keys=keys(4))['loss'] for _ in range(2))
    assert torch.equal(once, again)


def test_log_measures_are_the_cosines(milan):
    """loss = mean over CLS, visible and masked tokens of 2 - 2 cos."""
    images = torch.randn(4, 3, 32, 32)
    target = milan.target_generator(images)
    masks = milan.mask_generator(target.importance, keys(4))
    pred = masks.to_raster(milan.neck(milan.backbone(images, masks.visible), masks))
    cos = torch.cosine_similarity(pred, target.features, dim=-1)
    losses = milan.loss(images, sample_keys=keys(4))
    assert torch.allclose(losses['loss'], (2 - 2 * cos).mean(), atol=1e-5)
    assert torch.allclose(losses['cos_masked'], cos[:, 1:].gather(1, masks.masked).mean(),
                          atol=1e-5)
    share = target.importance.gather(1, masks.visible).sum(1) / target.importance.sum(1)
    assert torch.allclose(losses['importance_seen'], share.mean())


@pytest.mark.parametrize('target, decoder, masking, tokens, loss', list(itertools.product(
    ['clip', 'pixels'], ['PromptingDecoder', 'MAEDecoder'],
    ['SemanticMaskGenerator', 'RandomMaskGenerator'], ['all', 'masked'],
    ['CosineReconstructionLoss', 'MSEReconstructionLoss'])))
def test_every_combination_of_parts(teacher_folder, target, decoder, masking, tokens, loss):
    clip = dict(type='milan_mm.CLIPTargetGenerator', pretrained=str(teacher_folder))
    pixels = dict(type='milan_mm.PixelTargetGenerator', patch_size=8)
    config = milan_config(
        teacher_folder,
        target_generator=clip if target == 'clip' else pixels,
        importance_generator=clip if target == 'pixels' and 'Semantic' in masking else None,
        mask_generator=dict(type=f'milan_mm.{masking}'),
        neck=dict(type=f'milan_mm.{decoder}', decoder_embed_dim=32, decoder_depth=1,
                  decoder_num_heads=4),
        head=dict(type='milan_mm.ReconstructionHead', tokens=tokens,
                  loss=dict(type=f'milan_mm.{loss}')))
    model = MODELS.build(config)
    model.init_weights()
    losses = model.loss(torch.randn(2, 3, 32, 32))
    losses['loss'].backward()
    assert torch.isfinite(losses['loss'])
    assert all(p.grad is not None for p in model.backbone.parameters() if p.requires_grad)


@pytest.mark.parametrize('cls', [0, 1])
def test_weight_of_seen_tokens(cls):
    """A weighted mean over CLS, visible and masked tokens; the paper's is the plain one."""
    visible, masked = torch.tensor([[2, 0], [3, 1]]), torch.tensor([[1, 3, 4], [0, 4, 2]])
    masks = MaskIds(visible, masked)
    pred, features = torch.randn(2, 1 + 5, 4), torch.randn(2, cls + 5, 4)

    def loss(**options):
        head = MODELS.build(dict(type='milan_mm.ReconstructionHead', **options,
                                 loss=dict(type='milan_mm.MSEReconstructionLoss')))
        return head.loss(pred, features, masks)['loss'].item()

    errors = (pred[:, 1 - cls:] - masks.arrange(features)).square().mean(-1)
    seen, hidden = errors[:, :cls + 2].sum().item(), errors[:, cls + 2:].sum().item()
    assert loss(seen_weight=3) == pytest.approx((3 * seen + hidden) / (2 * (3 * (cls + 2) + 3)))
    assert loss(seen_weight=1) == loss() == pytest.approx(errors.mean().item())
    for wrong in (dict(seen_weight=0), dict(seen_weight='much'), dict(seen_weight=float('inf')),
                  dict(seen_weight=2, tokens='masked')):
        with pytest.raises(MilanError, match='seen_weight is a number above 0'):
            loss(**wrong)


@pytest.mark.parametrize('size, patch', [((32, 48), 8), ((48, 32), 16), (40, 8)])
def test_images_that_are_not_square(teacher_folder, size, patch):
    config = milan_config(teacher_folder, img_size=size)
    config['backbone']['patch_size'] = patch
    model = MODELS.build(config)
    height, width = (size, size) if isinstance(size, int) else size
    losses = model.loss(torch.randn(2, 3, height, width))
    losses['loss'].backward()
    grid = (height // patch, width // patch)
    assert model.backbone.grid_size == grid
    positions = model.backbone.pos_embed[0, 1:].view(*grid, -1)
    # The row's half of the channels is the same along a row, the column's along a column.
    assert torch.equal(positions[1, 0, 24:], positions[1, 1, 24:])
    assert torch.equal(positions[0, 1, :24], positions[1, 1, :24])
    assert not torch.equal(positions[0, 1, :24], positions[0, 0, :24])


def test_what_does_not_tile_says_what_would(teacher_folder):
    with pytest.raises(MilanError, match='Set img_size to 40 or 48'):
        MODELS.build(milan_config(teacher_folder, img_size=44))


def test_semantic_masks_need_importance(teacher_folder):
    with pytest.raises(MilanError, match='measures none'):
        MODELS.build(milan_config(teacher_folder, target_generator=dict(
            type='milan_mm.PixelTargetGenerator', patch_size=8)))


def test_ratio_that_shows_nothing_is_an_error_before_training(teacher_folder):
    with pytest.raises(MilanError, match='visible'):
        MODELS.build(milan_config(teacher_folder, mask_ratio=0.95))


@pytest.mark.parametrize('decoder', ['PromptingDecoder', 'MAEDecoder'])
def test_the_whole_loss_is_one_graph(teacher_folder, decoder):
    """torch.compile(fullgraph=True): no host synchronisation, no Python that cannot be traced."""
    config = milan_config(teacher_folder)
    config['neck']['type'] = f'milan_mm.{decoder}'
    model = MODELS.build(config)
    model.init_weights()
    images = torch.randn(2, 3, 32, 32)
    plain = model.loss(images, sample_keys=keys(2))
    compiled = torch.compile(model.loss, fullgraph=True, backend='aot_eager')(
        images, sample_keys=keys(2))
    assert torch.allclose(plain['loss'], compiled['loss'], atol=1e-6)


@pytest.mark.slow
def test_compiled_steps_are_those_of_the_plain_loss(milan):
    """``--compile`` as users have it: the default backend, forward and backward, one graph for an
    epoch whose last batch is short."""
    compiled = torch.nn.Module()
    compiled.loss = milan.loss
    compile_loss(compiled)
    counters.clear()
    for batch in (4, 4, 3):
        images, losses, gradients = torch.randn(batch, 3, 32, 32), [], []
        for loss in (milan.loss, compiled.loss):
            milan.zero_grad()
            losses.append(loss(images, sample_keys=keys(batch))['loss'])
            losses[-1].backward()
            gradients.append({name: parameter.grad.clone() for name, parameter
                              in milan.named_parameters() if parameter.grad is not None})
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
        assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 40
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-6,
                                       msg=lambda words, name=name: f'{name}: {words}')
    assert counters['stats']['unique_graphs'] == 1 and not counters['graph_break']


def test_no_host_synchronisation(milan):
    """Fake tensors have no values: reading one on the host, as .item() and boolean indexing do,
    is an error."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        losses = milan.loss(mode.from_tensor(torch.randn(2, 3, 32, 32)),
                            sample_keys=mode.from_tensor(keys(2)))
        losses['loss'].backward()
        assert losses['loss'].shape == ()
        with pytest.raises(Exception, match='aten._local_scalar_dense'):
            losses['loss'].item()


def test_each_parameter_in_one_group_with_the_right_decay(milan):
    from milan_mm.config.read import read_config
    cfg = read_config(ROOT / 'configs/milan/vitb_pretrain.py').optim_wrapper
    wrapper = build_optim_wrapper(milan, ConfigDict(
        type='OptimWrapper', optimizer=cfg.optimizer, paramwise_cfg=cfg.paramwise_cfg))
    groups = {}
    for group in wrapper.optimizer.param_groups:
        for parameter in group['params']:
            assert id(parameter) not in groups
            groups[id(parameter)] = group['weight_decay']
    trained = {n: p for n, p in milan.named_parameters() if p.requires_grad}
    assert set(groups) == {id(p) for p in trained.values()}
    assert set(dict(milan.named_parameters())) - set(trained) == {'backbone.pos_embed'}
    for name, parameter in trained.items():
        matrix = parameter.ndim >= 2 and not any(
            part in name for part in ('cls_token', 'mask_token', 'pos_embed'))
        assert groups[id(parameter)] == (0.05 if matrix else 0.0), name


def test_encoder_without_masks_is_the_plain_vit(milan):
    images = torch.randn(2, 3, 32, 32)
    whole = milan.backbone
    whole.eval()  # mmpretrain's gives None
    everything = torch.arange(16).expand(2, -1)
    assert torch.allclose(whole(images)[-1], whole(images, everything), atol=1e-5)
    assert milan(images, mode='tensor')[-1].shape == (2, 17, TINY_VIT['embed_dims'])
