# SPDX-License-Identifier: Apache-2.0
"""Everything that is worth seeing of a trained model and some images, as tensors."""
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...compat.pixel_statistics import pixel_statistics
from ...errors import MilanError
from ...inference.pretraining import inputs_of, mask_keys
from ...models import MILAN, PixelTargetGenerator
from ...models.masking import num_visible
from ...structures import MaskIds
from .painting import as_uint8, paint
from .rollout import cls_rollout

RATIOS = (0.25, 0.5, 0.75, 0.9)
_TOGETHER = 16  # images at a time


class Attempt(NamedTuple):
    """What the model predicted with so much masked; None where it predicts nothing.

    Attributes:
        ratio: share of patches masked.
        visible: (B, V) raster indices of the patches seen.
        error: (B, N) loss of each patch's prediction.
        measure: (B, N) the same as the log measures it: the cosine, or the squared error.
        predicted: (B, N, T).
        painted: (B, 3, H, W) uint8, the image with its masked patches as predicted; None unless
            the targets are pixels.
    """
    ratio: float
    visible: Tensor
    error: Tensor | None = None
    measure: Tensor | None = None
    predicted: Tensor | None = None
    painted: Tensor | None = None


class Views(NamedTuple):
    """A batch of images, looked at from all sides; everything on the CPU.

    Attributes:
        pixels: (B, 3, H, W) uint8.
        grid: rows and columns of patches.
        importance: (B, N), rows sum to 1; None if nothing measures it.
        rollout: (B, N) attention rollout of the encoder from CLS, rows sum to 1.
        masks: (B, K, V) visible patches of K draws at the training's ratio; the first is the one
            that ``trained`` saw.
        attempts: one for each mask ratio, ascending.
        trained: the one at the training's own ratio.
        target: (B, N, T) what was to be predicted.
        teacher: (B, N, T') features of the teacher; None without one.
        student: (B, N, D) the encoder's features of the whole image.
    """
    pixels: Tensor
    grid: tuple[int, int]
    importance: Tensor | None
    rollout: Tensor
    masks: Tensor
    attempts: list[Attempt]
    trained: Attempt
    target: Tensor
    teacher: Tensor | None
    student: Tensor


@torch.no_grad()
def view(model: MILAN, pixels: Tensor, seed: int = 0, draws: int = 4,
         ratios: Sequence[float] = RATIOS,
         on_step: Callable[[], None] = lambda: None) -> Views:
    """Teaches, masks at several ratios, encodes, decodes, compares.

    The mask of image i in draw k is a function of (seed, k, i). At every ratio an image has the
    same keys, so where patches are drawn one by one, what is seen with more masked is a part of
    what is seen with less masked.

    Args:
        model: what :func:`load_pretraining` gave.
        pixels: (B, 3, H, W) uint8, of the size the model was trained on.
        seed: seed of the masks.
        draws: K.
        ratios: shares of patches to mask besides the training's own; one that leaves no patch
            visible, or that the mask generator does not follow, is left out.
        on_step: is called after each image.
    """
    check_colours(model.backbone)
    parts = []
    for start in range(0, len(pixels), _TOGETHER):
        some = pixels[start:start + _TOGETHER]
        parts.append(_view_some(model, some, start, seed, draws, ratios))
        for _ in some:
            on_step()
    return _joined(parts)


def check_colours(backbone: nn.Module) -> None:
    """Raises MilanError for an encoder whose images are not RGB."""
    channels = backbone.patch_embed.projection.in_channels
    if channels != 3:
        raise MilanError(f'this model takes {channels} channels, and only RGB images are shown; '
                         'its features: milan extract, its worth: milan eval')


def usable_ratios(ratios: Sequence[float], trained: float, patches: int) -> list[float]:
    """The ratios, ascending, that leave something visible and something masked."""
    return sorted(ratio for ratio in {*ratios, trained}
                  if 0 < num_visible(patches, ratio) < patches)


def _view_some(model: MILAN, pixels: Tensor, first: int, seed: int, draws: int,
               ratios: Sequence[float]) -> Views:
    inputs = inputs_of(model, pixels)
    features, importance = model.teach(inputs)
    features = features[:, -importance.shape[1]:]  # without CLS, where there is one
    keys = [mask_keys(seed, range(first, first + len(pixels)), draw).to(inputs.device)
            for draw in range(draws)]
    masks = torch.stack([model.mask_generator(importance, key).visible for key in keys], dim=1)
    patches = importance.shape[1]
    usual = getattr(model.mask_generator, 'mask_ratio', 1 - masks.shape[2] / patches)
    attempts = [attempt(model, inputs, features, model.mask_generator(importance, keys[0], ratio),
                        ratio) for ratio in usable_ratios(ratios, usual, patches)]
    # A generator of somebody's own may go by something else than a ratio.
    attempts = [one for one in attempts if one.ratio == usual
                or one.visible.shape[1] == num_visible(patches, one.ratio)]
    return Views(
        pixels=pixels,
        grid=model.backbone.grid_size,
        importance=(importance / importance.sum(dim=1, keepdim=True)
                    if model.measures_importance else None),
        rollout=cls_rollout(model.backbone, inputs),
        masks=masks,
        attempts=attempts,
        trained=next(one for one in attempts if one.ratio == usual),
        target=features,
        teacher=_teacher_features(model, inputs, features),
        student=model.backbone(inputs)[-1][:, -patches:])


def attempt(model: MILAN, inputs: Tensor, features: Tensor, masks: MaskIds,
            ratio: float) -> Attempt:
    """The training's step from the mask on.

    Args:
        model: in eval mode.
        inputs: (B, 3, H, W) normalised pixels.
        features: (B, N, T) targets of the patches.
        masks: which patches are seen.
        ratio: share of patches that are masked.
    """
    if not model.predicts:
        return Attempt(ratio, masks.visible)
    predicted = model.predict(inputs, masks)
    error = model.head.patch_errors(predicted, features)
    predicted = predicted[:, 1:]
    painted = None
    if isinstance(model.target_generator, PixelTargetGenerator):
        painted = as_uint8(paint(model.target_generator, inputs, predicted, masks.visible),
                           *pixel_statistics(model.data_preprocessor))
    return Attempt(ratio, masks.visible, error, model.head.loss_module.as_measure(error), predicted,
                   painted)


def _teacher_features(model: MILAN, inputs: Tensor, features: Tensor) -> Tensor | None:
    """What the teacher says of the patches, also where the targets are pixels."""
    if not isinstance(model.target_generator, PixelTargetGenerator):
        return features
    if model.importance_generator is None:
        return None
    return model.importance_generator(inputs).features[:, -features.shape[1]:]


def _joined(parts: list[Views]) -> Views:
    """The parts' images one after the other, on the CPU."""
    if not parts:
        raise MilanError('got no image')

    def join(values: Sequence[Tensor | None]) -> Tensor | None:
        return None if values[0] is None else torch.cat([value.cpu() for value in values])

    attempts = [Attempt(some[0].ratio, *(join(column) for column in zip(*(a[1:] for a in some))))
                for some in zip(*(part.attempts for part in parts))]
    at = next(i for i, one in enumerate(parts[0].attempts) if one.ratio == parts[0].trained.ratio)
    whole = {name: join([getattr(part, name) for part in parts])
             for name in Views._fields if name not in ('grid', 'attempts', 'trained')}
    return Views(grid=parts[0].grid, attempts=attempts, trained=attempts[at], **whole)
