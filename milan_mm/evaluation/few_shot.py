# SPDX-License-Identifier: Apache-2.0
"""What features are worth when a class has only a few labelled images."""
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import MilanError
from ..keyed_random import sample_key
from .knn import check_features
from .linear_probe import linear_probe

# Of the linear probe. Too few images to hold some out for a choice, so one value for all.
L2 = 0.1


def few_shot(train: Tensor,
             train_labels: Tensor,
             test: Tensor,
             test_labels: Tensor,
             num_classes: int,
             shots: Sequence[int] = (1, 2, 5, 10),
             draws: int = 5,
             seed: int = 0,
             device: str = 'cpu') -> dict[str, Any]:
    """Accuracy of two classifiers that see ``shots`` images of each class, drawn several times.

    A draw of 5 images holds those of the same draw of 2, and two encoders on the same folders see
    the same images, so both can be compared in pairs. A class with fewer images gives all of
    them.

    Args:
        train: (n, D) features to draw from.
        train_labels: (n,) int64.
        test: (m, D), all of which are classified.
        test_labels: (m,) int64.
        num_classes: labels are below it.
        shots: images a class.
        draws: how often, with others each time.
        seed: of the draws.
        device: where it is computed.

    Returns:
        ``shots``: for each number ``shots``, ``images`` drawn in all, ``short`` (classes that
        have fewer), and of ``linear`` (:func:`linear_probe` with :data:`L2`) and ``centroid`` (the
        class whose mean feature of unit length has the largest cosine) ``top1`` (mean), ``sd``
        (over the draws, n - 1) and ``draws``, in percent; ``seed`` and ``l2``.

    Raises:
        MilanError: if there is nothing to draw or a number is below 1.
    """
    check_features(train, train_labels, 'training features')
    check_features(test, test_labels, 'test features')
    check_shots(shots, draws)
    rows = []
    for count in sorted(set(shots)):
        accuracy: dict[str, list[float]] = {'linear': [], 'centroid': []}
        for draw in range(draws):
            chosen = draw_rows(train_labels, count, draw, seed)
            some = (train[chosen], train_labels[chosen], test, test_labels, num_classes)
            accuracy['linear'].append(linear_probe(*some, device=device, l2=L2)['top1'])
            accuracy['centroid'].append(centroid_accuracy(*some, device=device))
        sizes = train_labels.unique(return_counts=True)[1]
        rows.append({'shots': count, 'images': len(chosen), 'short': int((sizes < count).sum()),
                     **{kind: _statistics(values) for kind, values in accuracy.items()}})
    return {'shots': rows, 'seed': seed, 'l2': L2}


def check_shots(shots: Sequence[int], draws: int) -> None:
    """Raises MilanError unless so many images a class can be drawn so often."""
    if not shots or min(shots) < 1 or draws < 1:
        raise MilanError(f'shots and draws must be at least 1, got {list(shots)} and {draws}')


def draw_rows(labels: Tensor, count: int, draw: int, seed: int) -> Tensor:
    """Rows of ``count`` images of each class; of fewer where a class has fewer."""
    rows = []
    for label in labels.unique().tolist():
        mine = (labels == label).nonzero().flatten()
        generator = torch.Generator().manual_seed(sample_key(seed, draw, label, 'few-shot'))
        rows.append(mine[torch.randperm(len(mine), generator=generator)[:count]])
    return torch.cat(rows)


@torch.no_grad()
def centroid_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor,
                      num_classes: int, device: str = 'cpu') -> float:
    """Top-1 in percent of the nearest class mean, by cosine; classes without images never win."""
    unit = F.normalize(train.to(device).float(), dim=1)
    labels = train_labels.to(device)
    sums = unit.new_zeros(num_classes, unit.shape[1]).index_add_(0, labels, unit)
    known = labels.unique()
    means = F.normalize(sums[known], dim=1)
    answers = torch.cat([known[(part.to(device).float() @ means.T).argmax(dim=1)]
                         for part in test.split(16384)])
    return 100.0 * (answers.cpu() == test_labels.cpu()).double().mean().item()


def _statistics(values: list[float]) -> dict[str, Any]:
    data = torch.tensor(values, dtype=torch.float64)
    return {'top1': data.mean().item(), 'sd': data.std().item() if len(values) > 1 else 0.0,
            'draws': values}
