# SPDX-License-Identifier: Apache-2.0
"""Which patches are seen: pure functions over indices, and the registered generators."""
import math

import torch
from torch import Tensor, nn

from .. import keyed_random
from ..errors import MilanError
from ..registry import MODELS
from ..structures import MaskIds, pair, repeat_for

_BLOCK_ASPECT = 1 / 0.3  # rectangles are up to so many times as high as wide, or as wide as high


def num_visible(num_patches: int, mask_ratio: float) -> int:
    """V = int(N (1 - ratio)); ``int`` rounds towards zero, as the published code does."""
    return int(num_patches * (1 - mask_ratio))


def draw_visible(weights: Tensor, noise: Tensor, visible: int,
                 temperature: float = 1.0) -> MaskIds:
    """Draws patches without replacement, each next one in proportion to its weight.

    Equal in distribution to the paper's multinomial draws (Sec. 3.2): the ``visible`` largest of
    ``log(weight) + Gumbel noise`` (Gumbel top-k), in float32 whatever the weights come in.

    Args:
        weights: (B, N), not negative.
        noise: (B, N) uniform in (0, 1).
        visible: V.
        temperature: draws in proportion to ``weights ** (1 / temperature)``. It scales the noise
            instead of the weights, whose powers would leave float32.

    Returns:
        The ids, visible ones in the order drawn.
    """
    gumbel = -torch.log(-torch.log(noise.float()))
    order = torch.argsort(
        torch.log(weights.float()) + temperature * gumbel, dim=1, descending=True)
    return MaskIds(order[:, :visible], order[:, visible:])


def add_uniform(masks: MaskIds, noise: Tensor, count: int) -> MaskIds:
    """Shows ``count`` of the masked patches too, each equally likely.

    Args:
        masks: of what was drawn so far.
        noise: (B, N) uniform in (0, 1), other numbers than drew those masks.
        count: patches to add.
    """
    order = noise.gather(1, masks.masked).argsort(dim=1)
    masked = masks.masked.gather(1, order)
    return MaskIds(torch.cat([masks.visible, masked[:, :count]], dim=1), masked[:, count:])


def order_by_blocks(draws: Tensor, grid_size: tuple[int, int], least: float,
                    most: float) -> Tensor:
    """Numbers patches by the first of a sequence of random rectangles that covers them.

    Args:
        draws: (B, K, 4) uniform in (0, 1): area, aspect, row and column of K rectangles.
        grid_size: rows and columns of patches.
        least: area of the smallest rectangle as a share of the grid.
        most: area of the largest.

    Returns:
        (B, N) the rectangle's number, K for a patch that none covers.
    """
    rows, columns = grid_size
    area = (least + (most - least) * draws[..., 0]) * rows * columns
    aspect = torch.exp((draws[..., 1] * 2 - 1) * math.log(_BLOCK_ASPECT))
    height = (area * aspect).sqrt().round().clamp(1, rows)
    width = (area / aspect).sqrt().round().clamp(1, columns)
    top = (draws[..., 2] * (rows - height + 1)).floor()
    left = (draws[..., 3] * (columns - width + 1)).floor()
    row = torch.arange(rows, device=draws.device)
    column = torch.arange(columns, device=draws.device)
    in_rows = (row >= top[..., None]) & (row < (top + height)[..., None])
    in_columns = (column >= left[..., None]) & (column < (left + width)[..., None])
    covered = (in_rows[..., :, None] & in_columns[..., None, :]).flatten(2)
    number = torch.arange(draws.shape[1], device=draws.device)[:, None]
    return torch.where(covered, number, draws.shape[1]).amin(dim=1)


class _MaskGenerator(nn.Module):
    """Base of the generators: holds the ratio, turns keys into noise.

    Args:
        mask_ratio: share of patches that are masked.
        views: how many masks are drawn of an image in training: its targets, the dearest part of
            a step, then serve so many steps of the student. 1 is the paper's.
        predicted: which share of the masked patches is predicted in training; the others, drawn
            at random, cost the decoder nothing. 1 is the paper's.
    """

    #: whether the importance handed in must really have been measured
    needs_importance = False
    #: uniform numbers an image's mask takes besides one a patch
    extra_draws = 0
    #: and how many more for each patch
    extra_draws_a_patch = 0

    def __init__(self, mask_ratio: float = 0.75, views: int = 1, predicted: float = 1.) -> None:
        super().__init__()
        if not 0 < mask_ratio < 1:
            raise MilanError(f'mask_ratio must be between 0 and 1, got {mask_ratio}: it is the '
                             'share of patches the encoder does not see')
        if not isinstance(views, int) or views < 1:
            raise MilanError(f'views must be a whole number from 1, got {views!r}: it is how many '
                             'masks are drawn of each image')
        if not 0 < predicted <= 1:
            raise MilanError(f'predicted must be above 0 and at most 1, got {predicted}: it is the '
                             'share of the masked patches that are predicted')
        self.mask_ratio, self.views, self.predicted = mask_ratio, views, predicted

    def num_visible(self, num_patches: int, mask_ratio: float | None = None) -> int:
        """V for a ratio, or for the generator's own.

        Raises:
            MilanError: if no patch would be visible, or none masked.
        """
        mask_ratio = self.mask_ratio if mask_ratio is None else mask_ratio
        visible = num_visible(num_patches, mask_ratio)
        if not 0 < visible < num_patches:
            raise MilanError(f'mask_ratio {mask_ratio} leaves {visible} of {num_patches} '
                             'patches visible, and at least one must be visible and one masked; '
                             'change it or use smaller patches')
        return visible

    def match_student(self, grid_size: tuple[int, int]) -> None:
        """Prepares for the student's grid of patches; called once, before training.

        Raises:
            MilanError: if the ratio leaves nothing visible, or nothing masked, of such a grid.
        """
        self.num_visible(grid_size[0] * grid_size[1])

    def weights(self, importance: Tensor) -> Tensor:
        raise NotImplementedError

    def draw(self, importance: Tensor, noise: Tensor, visible: int) -> MaskIds:
        """Masks from (B, N + extra_draws + N extra_draws_a_patch) uniform numbers in (0, 1)."""
        return draw_visible(self.weights(importance), noise, visible)

    def forward(self, importance: Tensor, keys: Tensor | None = None,
                mask_ratio: float | None = None) -> MaskIds:
        """Draws the masks of a batch.

        Args:
            importance: (B, N) from the teacher.
            keys: (B,) int64, one an image; the masks are a function of them. None takes keys
                from torch's global generator.
            mask_ratio: another one than the generator's own, for whoever looks at a trained model.

        Returns:
            The ids, ``views`` neighbouring rows an image.
        """
        batch, patches = importance.shape
        if keys is None:
            keys = torch.randint(2**63 - 1, (batch, ), device=importance.device)
        views, predicted = (self.views, self.predicted) if self.training else (1, 1.)
        own = patches * (1 + self.extra_draws_a_patch) + self.extra_draws
        count = own + (patches if predicted < 1 else 0)
        noise = keyed_random.uniform(keys, views * count).view(batch * views, count)
        masks = self.draw(repeat_for(noise, importance), noise[:, :own],
                          self.num_visible(patches, mask_ratio))
        if predicted == 1:
            return masks
        masked = masks.masked.shape[1]
        kept = max(round(predicted * masked), 1)
        chosen = noise[:, own:own + masked].argsort(dim=1)[:, :kept]
        return MaskIds(masks.visible, masks.masked.gather(1, chosen), masked - kept)


@MODELS.register_module()
class SemanticMaskGenerator(_MaskGenerator):
    """Important patches are likelier to be seen: the semantic aware sampling of Sec. 3.2.

    Args:
        mask_ratio: share of patches that are masked.
        temperature: patches are drawn in proportion to ``importance ** (1 / temperature)``. 1 is
            the paper's; below it the choice keeps closer to the most important patches, towards
            infinity it becomes random.
        views, predicted: see :class:`RandomMaskGenerator`.
        uniform_share: share of the visible patches that is drawn from all the others with equal
            chances, after the important ones; so the encoder also sees some of what the teacher
            does not look at. 0 is the paper's, 1 is random masking.

    Raises:
        MilanError: if the temperature is not above 0, or the share not from 0 to 1.
    """
    needs_importance = True

    def __init__(self, mask_ratio: float = 0.75, temperature: float = 1.0, views: int = 1,
                 predicted: float = 1., uniform_share: float = 0.) -> None:
        super().__init__(mask_ratio, views, predicted)
        if not 0 <= uniform_share <= 1:
            raise MilanError(f'uniform_share must be from 0 to 1, got {uniform_share}: it is the '
                             'share of the visible patches that is drawn with equal chances')
        if not temperature > 0:
            raise MilanError(f'temperature must be above 0, got {temperature}: 1 is the paper\'s, '
                             'and LeastImportantMaskGenerator shows the least important patches')
        self.temperature, self.uniform_share = temperature, uniform_share
        self.extra_draws_a_patch = int(uniform_share > 0)

    def weights(self, importance: Tensor) -> Tensor:
        return importance

    def draw(self, importance: Tensor, noise: Tensor, visible: int) -> MaskIds:
        patches, uniform = importance.shape[1], round(self.uniform_share * visible)
        masks = draw_visible(importance, noise[:, :patches], visible - uniform, self.temperature)
        return add_uniform(masks, noise[:, patches:], uniform) if uniform else masks


@MODELS.register_module()
class LeastImportantMaskGenerator(_MaskGenerator):
    """Unimportant patches are likelier to be seen: a control for :class:`SemanticMaskGenerator`.

    Drawn in proportion to ``1 / importance``, so that only the direction differs. Not of the
    paper.

    Args:
        mask_ratio: share of patches that are masked.
    """
    needs_importance = True

    def weights(self, importance: Tensor) -> Tensor:
        return 1 / importance.float().clamp(min=1e-30)


@MODELS.register_module()
class RandomMaskGenerator(_MaskGenerator):
    """Every patch is equally likely to be seen: MAE's sampling, the paper's control (Table 6).

    Args:
        mask_ratio: share of patches that are masked.
        views: how many masks are drawn of an image in training, whose targets then serve them all.
        predicted: which share of the masked patches is predicted in training.
    """

    def weights(self, importance: Tensor) -> Tensor:
        return torch.ones_like(importance)


@MODELS.register_module()
class BlockwiseMaskGenerator(_MaskGenerator):
    """Whole rectangles are masked, until as many patches are as the ratio says.

    In the manner of BEiT (arXiv 2106.08254, Sec. 2.3): rectangles of random size, aspect and
    place. The last one is masked in part, at random, so that the count is exact.

    Args:
        mask_ratio: share of patches that are masked.
        least: area of the smallest rectangle as a share of the grid; BEiT's is 16 of 196.
        most: area of the largest.
        views, predicted: see :class:`RandomMaskGenerator`.

    Raises:
        MilanError: if the shares are not 0 < least <= most <= 1.
    """
    blocks = 32
    extra_draws = 4 * blocks

    def __init__(self, mask_ratio: float = 0.75, least: float = 16 / 196, most: float = 0.4,
                 views: int = 1, predicted: float = 1.) -> None:
        super().__init__(mask_ratio, views, predicted)
        if not 0 < least <= most <= 1:
            raise MilanError('least and most are shares of the grid, 0 < least <= most <= 1; got '
                             f'{least} and {most}')
        self.least, self.most = least, most
        self.grid_size = (0, 0)  # match_student tells it

    def match_student(self, grid_size: tuple[int, int]) -> None:
        super().match_student(grid_size)
        self.grid_size = pair(grid_size)

    def draw(self, importance: Tensor, noise: Tensor, visible: int) -> MaskIds:
        noise, draws = noise.split([importance.shape[1], self.extra_draws], dim=1)
        number = order_by_blocks(
            draws.unflatten(1, (self.blocks, 4)), self.grid_size, self.least, self.most)
        # Masked first: patches of early rectangles, at random within one.
        order = torch.argsort(number + noise, dim=1)
        masked = importance.shape[1] - visible
        return MaskIds(order[:, masked:], order[:, :masked])
