# SPDX-License-Identifier: Apache-2.0
"""Several teachers at once."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import MilanError
from ...registry import MODELS
from ...structures import TeacherOutput
from .base import TargetGenerator


@MODELS.register_module()
class ConcatTargetGenerator(TargetGenerator):
    """The features of several teachers side by side.

    Each teacher's feature of a token is brought to length 1 and multiplied by its weight, so T is
    the sum of their widths. Where each part of a prediction has its teacher's length, the cosine
    of the whole is the mean of the parts' cosines weighted by ``weight ** 2``.

    Args:
        generators: the teachers, such as a CLIP and a DINOv2. All of them give a CLS feature, or
            none does.
        weights: one a teacher, positive; None for equal ones.
        importance: 'first' takes that of the first teacher; 'weighted' the mean, weighted by
            ``weight ** 2``, over the teachers that measure one, each brought to sum 1.

    Raises:
        MilanError: if there are no teachers, weights do not fit them, or some give a CLS feature
            and others do not.
    """

    def __init__(self,
                 generators: Sequence[dict | TargetGenerator],
                 weights: Sequence[float] | None = None,
                 importance: str = 'first') -> None:
        super().__init__()
        if not generators:
            raise MilanError('ConcatTargetGenerator needs one generator or more, got none')
        weights = [1.0] * len(generators) if weights is None else list(weights)
        if len(weights) != len(generators) or min(weights) <= 0:
            raise MilanError(f'weights must be {len(generators)} positive numbers, one a '
                             f'generator, got {weights}')
        if importance not in ('first', 'weighted'):
            raise MilanError(f"importance must be 'first' or 'weighted', got {importance!r}")
        self.generators = nn.ModuleList(
            part if isinstance(part, nn.Module) else MODELS.build(part) for part in generators)
        self.weights, self.weighted = weights, importance == 'weighted'
        self.in_channels = next((part.in_channels for part in self.generators
                                 if part.in_channels), None)
        self.dim = sum(part.dim for part in self.generators)
        measuring = [part.measures_importance for part in self.generators]
        self.measures_importance = any(measuring) if self.weighted else measuring[0]
        self.freeze()

    def match_student(self, grid_size: tuple[int, int], pixel_mean: Sequence[float] | None,
                      pixel_std: Sequence[float] | None) -> None:
        super().match_student(grid_size, pixel_mean, pixel_std)
        for part in self.generators:
            part.match_student(grid_size, pixel_mean, pixel_std)
        self.freeze()

    def set_grid(self, grid_size: tuple[int, int]) -> None:
        self.grid_size = grid_size
        for part in self.generators:
            part.set_grid(grid_size)

    def generate(self, images: Tensor) -> TeacherOutput:
        outputs = [part.generate(images) for part in self.generators]
        counts = {type(part).__name__: out.features.shape[1]
                  for part, out in zip(self.generators, outputs)}
        if len(set(counts.values())) > 1:
            raise MilanError(f'the teachers give different numbers of tokens ({counts}): one gives '
                             'a CLS feature, another does not, as pixels do. They cannot stand '
                             'side by side')
        features = torch.cat([weight * F.normalize(out.features.float(), dim=-1)
                              for weight, out in zip(self.weights, outputs)], dim=-1)
        return TeacherOutput(features, self._importance(outputs))

    def _importance(self, outputs: Sequence[TeacherOutput]) -> Tensor:
        if not self.weighted or not self.measures_importance:
            return outputs[0].importance
        shares = [weight**2 * out.importance.float() / out.importance.float().sum(1, keepdim=True)
                  for part, weight, out in zip(self.generators, self.weights, outputs)
                  if part.measures_importance]
        total = sum(weight**2 for part, weight in zip(self.generators, self.weights)
                    if part.measures_importance)
        return torch.stack(shares).sum(0) / total
