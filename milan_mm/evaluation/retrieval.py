# SPDX-License-Identifier: Apache-2.0
"""Retrieval: does a query rank the images of its class first?"""
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import MilanError
from .knn import check_features

_NUMBERS = 1 << 24  # similarities held at a time


@torch.no_grad()
def retrieval_map(gallery: Tensor,
                  gallery_labels: Tensor,
                  queries: Tensor,
                  query_labels: Tensor,
                  leave_one_out: bool = False,
                  device: str = 'cpu') -> dict[str, Any]:
    """Mean average precision of ranking the gallery by cosine.

    The average precision of a query is the mean, over the gallery's images of its class, of the
    share of its class among those ranked no later. All ranks count, not the first k alone.

    Args:
        gallery: (n, D) features; need not be normalised.
        gallery_labels: (n,) int64.
        queries: (m, D).
        query_labels: (m,) int64.
        leave_one_out: ``queries`` is the gallery itself, and no image finds itself.
        device: where the similarities are computed.

    Returns:
        ``map`` and ``first`` (queries whose nearest image is of their class) in percent;
        ``queries`` and ``left_out``: queries whose class has no other image are not counted.

    Raises:
        MilanError: if there is nothing to compare.
    """
    check_features(gallery, gallery_labels, 'gallery')
    check_features(queries, query_labels, 'queries')
    if leave_one_out and len(queries) != len(gallery):
        raise MilanError('leave_one_out needs queries equal to the gallery, got '
                         f'{len(queries)} and {len(gallery)} images')
    labels = gallery_labels.to(device)
    chunk = max(_NUMBERS // len(gallery), 1)
    precision = first = 0.0
    counted = 0
    for start in range(0, len(queries), chunk):
        unit = F.normalize(queries[start:start + chunk].to(device).float(), dim=1)
        similarity = torch.cat(
            [unit @ F.normalize(part.to(device).float(), dim=1).T for part in gallery.split(65536)],
            dim=1)
        rows = torch.arange(len(unit), device=device)
        if leave_one_out:  # ranked last, and of no class
            similarity[rows, rows + start] = -torch.inf
        order = similarity.argsort(dim=1, descending=True, stable=True)
        hits = labels[order] == query_labels[start:start + chunk].to(device)[:, None]
        if leave_one_out:
            hits = hits[:, :-1]
        positives = hits.sum(dim=1)
        some = positives > 0
        hits, positives = hits[some].double(), positives[some]
        ranks = torch.arange(1, hits.shape[1] + 1, device=device)
        precision += ((hits.cumsum(dim=1) / ranks * hits).sum(dim=1) / positives).sum().item()
        first += hits[:, 0].sum().item() if hits.shape[1] else 0.0
        counted += len(hits)
    if not counted:
        raise MilanError('retrieval: no query has another image of its class in the gallery')
    return {'map': 100.0 * precision / counted, 'first': 100.0 * first / counted,
            'queries': counted, 'left_out': len(queries) - counted,
            'mode': 'leave-one-out' if leave_one_out else 'gallery'}
