# SPDX-License-Identifier: Apache-2.0
"""Have the features collapsed? Measures that need no labels."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import MilanError
from .knn import check_features


@torch.no_grad()
def collapse_measures(features: Tensor, chunk: int = 65536) -> dict[str, float]:
    """How much of its space an encoder uses.

    No one of the three is good or bad by itself; a run whose ``effective_rank`` falls towards 1
    or whose ``mean_cosine`` rises towards 1 while the loss still falls is collapsing.

    Args:
        features: (n, D), n at least 2.
        chunk: rows at a time; memory beside the features is this times D, and D · D.

    Returns:
        - ``mean_cosine``: mean cosine of two different images. 0 when directions are spread
          evenly, 1 when all features point one way. ViTs often sit at 0.3 to 0.9 and still
          classify well, as a common offset does no harm; 0.99 and rising does.
        - ``effective_rank``: exp of the entropy of the singular values, scaled to sum 1 (Roy and
          Vetterli 2007; RankMe, arXiv 2210.02885), of the features less their mean. Between 1
          (all on a line) and min(n - 1, D) (all directions alike): how many directions carry
          something. 0 when all features are the same point.
        - ``std``: mean over dimensions of the standard deviation of the features scaled to unit
          length, times the square root of D. 1 when spread evenly, 0 when collapsed to a point
          (SimSiam, arXiv 2011.10566, Fig. 2).

    Raises:
        MilanError: if there are fewer than 2 features, or some are not finite.
    """
    check_features(features, features[:, 0], 'features')
    n, dim = features.shape
    if n < 2:
        raise MilanError('collapse is measured between images; got features of 1, need 2')
    mean = torch.zeros(dim, dtype=torch.float64, device=features.device)
    unit_sum, unit_square = mean.clone(), mean.clone()
    gram = torch.zeros(dim, dim, dtype=torch.float64, device=features.device)
    for part in features.split(chunk):
        mean += part.double().sum(dim=0) / n
        unit = F.normalize(part.double(), dim=1)
        unit_sum += unit.sum(dim=0)
        unit_square += unit.square().sum(dim=0)
    for part in features.split(chunk):
        centred = part.double() - mean
        gram += centred.T @ centred
    variance = (unit_square / n - (unit_sum / n).square()).clamp_min(0)
    return {
        # The squared length of the sum is all pairs, each image with itself included.
        'mean_cosine': ((unit_sum.square().sum() - unit_square.sum()) / (n * (n - 1))).item(),
        'effective_rank': _effective_rank(gram, (mean.square().sum() * n).item()),
        'std': (variance.sqrt().mean() * dim**0.5).item(),
    }


def _effective_rank(gram: Tensor, energy_of_mean: float) -> float:
    """Of the matrix whose Gram matrix (D, D) this is; rounding beside the mean is no variance."""
    squares = torch.linalg.eigvalsh(gram).clamp_min(0)
    if squares.sum() <= 1e-12 * energy_of_mean or squares.sum() == 0:
        return 0.0
    share = squares.sqrt() / squares.sqrt().sum()
    return torch.special.entr(share).sum().exp().item()
