# SPDX-License-Identifier: Apache-2.0
"""Masks: a partition, drawn in proportion to importance, a function of their keys."""
import itertools
import math

import pytest
import torch
from conftest import milan_config

from milan_mm import keyed_random
from milan_mm.errors import MilanError
from milan_mm.models.masking import (
    BlockwiseMaskGenerator,
    LeastImportantMaskGenerator,
    RandomMaskGenerator,
    SemanticMaskGenerator,
    draw_visible,
    num_visible,
    order_by_blocks,
)
from milan_mm.registry import MODELS
from milan_mm.structures import MaskIds

# 1 % quantile of the chi-square distribution from above, by degrees of freedom
CHI2_99 = {5: 15.09, 7: 18.48, 11: 24.72, 15: 30.58}


def chi_square(counts, expected):
    return sum((c - e)**2 / e for c, e in zip(counts, expected))


def keys(count, purpose='mask'):
    return torch.tensor([keyed_random.sample_key(0, 0, i, purpose) for i in range(count)])


@pytest.mark.parametrize('patches, ratio, visible', [(196, .75, 49), (16, .75, 4), (35, .6, 14),
                                                     (10, .75, 2), (196, .9, 19)])
def test_number_of_visible_patches_is_truncated(patches, ratio, visible):
    assert num_visible(patches, ratio) == visible


@pytest.mark.parametrize('generator', [SemanticMaskGenerator, RandomMaskGenerator,
                                       LeastImportantMaskGenerator])
def test_visible_and_masked_partition_the_patches(generator):
    masks = generator(0.75)(torch.rand(32, 196), keys(32))
    assert masks.visible.shape == (32, 49) and masks.masked.shape == (32, 147)
    together = torch.cat([masks.visible, masks.masked], dim=1)
    assert torch.equal(together.sort(dim=1).values, torch.arange(196).expand(32, -1))


def test_arrange_and_back():
    masks = RandomMaskGenerator(0.5)(torch.ones(2, 6), keys(2))
    tokens = torch.randn(2, 7, 3)
    arranged = masks.arrange(tokens)
    assert torch.equal(arranged[:, 0], tokens[:, 0])
    assert torch.equal(arranged[0, 1], tokens[0, 1 + masks.visible[0, 0]])
    assert torch.equal(masks.to_raster(arranged), tokens)


def test_views_are_masks_of_the_same_images(teacher_folder):
    """Two views' loss is the mean of the losses of their masks, and one pass of the teacher."""
    torch.manual_seed(0)
    model = MODELS.build(milan_config(teacher_folder))
    model.init_weights()
    images, passes, losses = torch.randn(3, 3, 32, 32), [], []
    model.target_generator.register_forward_hook(lambda *args: passes.append(len(args[1][0])))
    importance = model.teach(images).importance
    one, two = (SemanticMaskGenerator(views=views)(importance, keys(3)) for views in (1, 2))
    assert torch.equal(two.visible[::2], one.visible)  # the first view is what it was
    assert not torch.equal(two.visible[1::2], one.visible)
    assert torch.equal(two.share_seen(importance)[::2], one.share_seen(importance))
    for i in range(2):
        model.mask_generator.forward = lambda *args, i=i: MaskIds(two.visible[i::2],
                                                                  two.masked[i::2])
        losses.append(model.loss(images)['loss'])
    model.mask_generator = SemanticMaskGenerator(views=2)
    passes.clear()
    both = model.loss(images, sample_keys=keys(3))['loss']
    torch.testing.assert_close(both, torch.stack(losses).mean())
    both.backward()
    assert passes == [3] and model.backbone.cls_token.grad.abs().sum() > 0
    assert len(model.mask_generator.eval()(importance, keys(3)).visible) == 3


def test_some_masked_patches_are_predicted(teacher_folder):
    """What is left out costs no token in the decoder, and changes no other prediction's target."""
    whole = SemanticMaskGenerator()(torch.rand(4, 16), keys(4))
    part = SemanticMaskGenerator(predicted=.5)(torch.ones(4, 16), keys(4))
    assert part.masked.shape == (4, 6) and part.skipped == 6 and part.num_patches() == 16
    part = SemanticMaskGenerator(predicted=.5)(torch.rand(4, 16), keys(4))
    assert all(not set(a) & set(b) for a, b in zip(part.masked.tolist(), part.visible.tolist()))
    tokens = torch.randn(4, 17, 3)
    arranged = part.arrange(tokens)
    assert arranged.shape == (4, 1 + 4 + 6, 3)
    assert torch.equal(arranged[0, -1], tokens[0, 1 + part.masked[0, -1]])
    assert whole.arrange(tokens).shape == (4, 17, 3)
    model = MODELS.build(milan_config(
        teacher_folder, mask_generator=dict(type='milan_mm.SemanticMaskGenerator', predicted=.5)))
    shapes = []
    model.neck.register_forward_hook(lambda *args: shapes.append(args[-1].shape[1]))
    assert model.loss(torch.randn(2, 3, 32, 32))['loss'].isfinite() and shapes == [11]


@pytest.mark.parametrize('wrong', [dict(views=0), dict(views=1.5), dict(predicted=0.)])
def test_views_and_predicted_that_cannot_be(wrong):
    with pytest.raises(MilanError, match=next(iter(wrong))):
        RandomMaskGenerator(**wrong)


def test_first_draw_follows_importance():
    """Chi-square over which patch is drawn first: p_i = w_i / sum(w)."""
    weights = torch.tensor([.3, .2, .15, .1, .1, .08, .05, .02])
    draws = 20000
    masks = SemanticMaskGenerator(0.75)(weights.expand(draws, -1), keys(draws))
    counts = torch.bincount(masks.visible[:, 0], minlength=8).tolist()
    assert chi_square(counts, [draws * w for w in weights.tolist()]) < CHI2_99[7]


def test_sets_follow_draws_without_replacement():
    """Chi-square over the set of two patches, against the exact probabilities of successive
    draws without replacement (what torch.multinomial does)."""
    weights = [.5, .25, .15, .1]
    draws = 20000
    masks = SemanticMaskGenerator(0.5)(torch.tensor(weights).expand(draws, -1), keys(draws))
    pairs = list(itertools.combinations(range(4), 2))
    exact = [weights[a] * weights[b] / (1 - weights[a]) + weights[b] * weights[a] /
             (1 - weights[b]) for a, b in pairs]
    assert math.isclose(sum(exact), 1)
    seen = [tuple(sorted(row)) for row in masks.visible.tolist()]
    assert chi_square([seen.count(p) for p in pairs], [draws * p for p in exact]) < CHI2_99[5]


def test_random_masking_is_uniform_whatever_the_importance():
    draws = 12000
    masks = RandomMaskGenerator(0.75)(torch.rand(draws, 16), keys(draws))
    counts = torch.bincount(masks.visible[:, 0], minlength=16).tolist()
    assert chi_square(counts, [draws / 16] * 16) < CHI2_99[15]


def test_masks_are_a_function_of_the_keys():
    generator, importance = SemanticMaskGenerator(0.75), torch.rand(8, 64)
    whole = generator(importance, keys(8))
    torch.rand(100)  # draws from the global generator change nothing
    halves = [generator(importance[i:i + 4], keys(8)[i:i + 4]) for i in (0, 4)]
    assert torch.equal(whole.visible, torch.cat([h.visible for h in halves]))
    other = generator(importance, keys(8, 'another purpose'))
    assert not torch.equal(whole.visible, other.visible)


def test_a_patch_of_no_importance_is_seen_last():
    weights = torch.tensor([[0., 1., 1., 1.]]).expand(50, -1)
    masks = draw_visible(weights, keyed_random.uniform(keys(50), 4), 3)
    assert (masks.masked == 0).all()


def test_half_precision_importance_is_drawn_in_float32():
    weights = torch.rand(4, 64)
    noise = keyed_random.uniform(keys(4), 64)
    low = weights.to(torch.bfloat16)
    assert torch.equal(draw_visible(low, noise, 16).visible,
                       draw_visible(low.float(), noise, 16).visible)


def test_uniform_numbers():
    """In (0, 1), uniform by chi-square, uncorrelated between neighbours, keys and positions."""
    numbers = keyed_random.uniform(keys(500), 240)
    assert 0 < numbers.min() and numbers.max() < 1 and numbers.dtype == torch.float32
    counts = torch.histc(numbers, 12, 0, 1).tolist()
    assert chi_square(counts, [numbers.numel() / 12] * 12) < CHI2_99[11]
    centred = numbers - 0.5
    for a, b in ((centred[:, 1:], centred[:, :-1]), (centred[1:], centred[:-1])):
        assert abs((a * b).mean() * 12) < 4 / math.sqrt(a.numel())


@pytest.mark.parametrize('ratio', [0, 1, -0.1, 1.5])
def test_bad_ratio(ratio):
    with pytest.raises(MilanError, match='mask_ratio'):
        RandomMaskGenerator(ratio)


def test_ratio_that_leaves_nothing_visible():
    with pytest.raises(MilanError, match='0 of 4'):
        RandomMaskGenerator(0.9)(torch.ones(1, 4), keys(1))


def test_temperature_draws_by_a_power_of_importance():
    """Chi-square over the first draw: p_i = w_i^(1/t) / sum, and 1 is the paper's, bit by bit."""
    weights = torch.tensor([.3, .2, .15, .1, .1, .08, .05, .02])
    draws = 20000
    for temperature in (.5, 2.):
        masks = SemanticMaskGenerator(0.75, temperature)(weights.expand(draws, -1), keys(draws))
        power = weights**(1 / temperature)
        counts = torch.bincount(masks.visible[:, 0], minlength=8).tolist()
        assert chi_square(counts, (draws * power / power.sum()).tolist()) < CHI2_99[7]
    importance = torch.rand(8, 64)
    assert torch.equal(SemanticMaskGenerator(0.75, 1.)(importance, keys(8)).visible,
                       SemanticMaskGenerator(0.75)(importance, keys(8)).visible)
    with pytest.raises(MilanError, match='temperature must be above 0'):
        SemanticMaskGenerator(temperature=0)


def test_a_low_temperature_shows_the_most_important_patches():
    torch.manual_seed(0)  # no two as good as equal
    importance = torch.rand(16, 64) * 1e-6  # far below 1: no power may run out of float32
    masks = SemanticMaskGenerator(0.75, 1e-3)(importance, keys(16))
    assert torch.equal(masks.visible.sort(dim=1).values,
                       importance.topk(16, dim=1).indices.sort(dim=1).values)


def test_some_patches_are_drawn_uniformly():
    """Of 4 visible patches 2 by importance, 2 from the 14 that are left: 8/7 of no importance."""
    importance = torch.tensor([1.] * 8 + [0.] * 8).expand(3000, 16)
    masks = SemanticMaskGenerator(uniform_share=.5)(importance, keys(3000))
    both = torch.cat([masks.visible, masks.masked], dim=1)
    assert masks.visible.shape == (3000, 4) and (both.sort(dim=1).values == torch.arange(16)).all()
    assert (masks.visible[:, :2] < 8).all()
    unimportant = masks.visible[masks.visible >= 8]
    assert len(unimportant) / 3000 == pytest.approx(8 / 7, abs=.05)
    counts = (unimportant - 8).bincount().tolist()
    assert chi_square(counts, [len(unimportant) / 8] * 8) < CHI2_99[7]
    every = SemanticMaskGenerator(uniform_share=1)(importance, keys(3000)).visible.flatten()
    assert chi_square(every.bincount().tolist(), [750] * 16) < CHI2_99[15]


def test_uniform_share_none_is_the_papers_and_wrong_ones_are_refused():
    importance = torch.rand(8, 16) + .1
    paper, named = (SemanticMaskGenerator(**more)(importance, keys(8))
                    for more in ({}, dict(uniform_share=0.)))
    drawn = draw_visible(importance, keyed_random.uniform(keys(8), 16), 4)
    assert torch.equal(paper.visible, drawn.visible) and torch.equal(named.masked, drawn.masked)
    with pytest.raises(MilanError, match='uniform_share must be from 0 to 1'):
        SemanticMaskGenerator(uniform_share=1.5)


def test_least_important_is_drawn_by_the_inverse():
    weights = torch.tensor([.3, .2, .15, .1, .1, .08, .05, .02])
    draws = 20000
    masks = LeastImportantMaskGenerator(0.75)(weights.expand(draws, -1), keys(draws))
    inverse = 1 / weights
    counts = torch.bincount(masks.visible[:, 0], minlength=8).tolist()
    assert chi_square(counts, (draws * inverse / inverse.sum()).tolist()) < CHI2_99[7]


def blockwise(ratio=0.75, grid=(14, 14), images=64):
    generator = BlockwiseMaskGenerator(ratio)
    generator.match_student(grid)
    return generator(torch.ones(images, grid[0] * grid[1]), keys(images))


@pytest.mark.parametrize('ratio, grid', [(.75, (14, 14)), (.4, (14, 14)), (.6, (6, 10)),
                                         (.9, (8, 8))])
def test_blocks_mask_exactly_the_ratio(ratio, grid):
    masks = blockwise(ratio, grid)
    patches = grid[0] * grid[1]
    assert masks.visible.shape == (64, num_visible(patches, ratio))
    together = torch.cat([masks.visible, masks.masked], dim=1)
    assert torch.equal(together.sort(dim=1).values, torch.arange(patches).expand(64, -1))


def test_first_rectangle_that_covers_a_patch():
    """Two rectangles by hand on a 4 x 4 grid: 2 x 2 at the top left, then 2 x 2 in the middle."""
    # area 4 of 16; aspect 1; places 0 and 1 of the 3 possible ones
    draws = torch.tensor([[[.5, .5, .1, .1], [.5, .5, .5, .5]]])
    number = order_by_blocks(draws, (4, 4), .25, .25).view(4, 4)
    assert number.tolist() == [[0, 0, 2, 2], [0, 0, 1, 2], [2, 1, 1, 2], [2, 2, 2, 2]]


def test_blocks_are_blocks():
    """Neighbours share their fate far oftener than under random masking of the same ratio."""
    def share_of_equal_neighbours(masks):
        seen = torch.zeros(64, 196).scatter(1, masks.visible, 1.).view(64, 14, 14)
        return (seen[:, :, 1:] == seen[:, :, :-1]).float().mean().item()

    random = RandomMaskGenerator(.5)(torch.ones(64, 196), keys(64))
    assert abs(share_of_equal_neighbours(random) - .5) < .02
    assert share_of_equal_neighbours(blockwise(.5)) > .85


@pytest.mark.parametrize('shares', [(0, .4), (.5, .4), (.1, 1.5)])
def test_bad_block_sizes(shares):
    with pytest.raises(MilanError, match='0 < least <= most <= 1'):
        BlockwiseMaskGenerator(.75, *shares)
