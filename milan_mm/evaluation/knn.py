# SPDX-License-Identifier: Apache-2.0
"""Weighted k-nearest-neighbour classification (Wu et al., arXiv 1805.01978, Sec. 3.4).

The usual measure of features without training anything: the k most similar images of the
gallery vote for their class, with weight exp(cosine / temperature).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import MilanError


def knn_accuracy(gallery: Tensor,
                 gallery_labels: Tensor,
                 queries: Tensor,
                 query_labels: Tensor,
                 num_classes: int,
                 k: int = 20,
                 temperature: float = 0.07,
                 leave_one_out: bool = False,
                 device: str = 'cpu',
                 query_chunk: int = 1024,
                 gallery_chunk: int = 16384) -> dict[str, float]:
    """Accuracy of the weighted vote; arguments as of :func:`knn_classes`.

    Returns:
        ``top1``, and ``top5`` if there are at least 5 classes, in percent.
    """
    check_features(queries, query_labels, 'queries')
    ranked = knn_classes(gallery, gallery_labels, queries, num_classes, k, temperature,
                         leave_one_out, device, query_chunk, gallery_chunk)
    return top_k(ranked, query_labels)


@torch.no_grad()
def knn_classes(gallery: Tensor,
                gallery_labels: Tensor,
                queries: Tensor,
                num_classes: int,
                k: int = 20,
                temperature: float = 0.07,
                leave_one_out: bool = False,
                device: str = 'cpu',
                query_chunk: int = 1024,
                gallery_chunk: int = 16384) -> Tensor:
    """The classes that the weighted vote names, best first: (m, 5), or fewer if there are fewer.

    Beside the features, which stay where they are, memory is bounded by ``query_chunk`` ·
    (``gallery_chunk`` + ``num_classes``) numbers; the result does not depend on the chunks.

    Args:
        gallery: (n, D) features whose classes are known; need not be normalised.
        gallery_labels: (n,) int64.
        queries: (m, D).
        num_classes: labels are below it.
        k: neighbours that vote; with fewer in the gallery, all vote.
        temperature: of the weights.
        leave_one_out: ``queries`` is the gallery itself, and no image votes for itself.
        device: where the similarities are computed.
        query_chunk, gallery_chunk: how many rows at a time.

    Raises:
        MilanError: if there is nothing to compare.
    """
    check_features(gallery, gallery_labels, 'gallery')
    check_voting(k, temperature)
    if leave_one_out and (len(queries) != len(gallery) or len(gallery) < 2):
        raise MilanError(f'leave_one_out needs queries equal to the gallery and at least 2 '
                         f'images, got {len(queries)} and {len(gallery)}')
    ranks = min(5, num_classes)
    found = []
    for start in range(0, len(queries), query_chunk):
        chunk = F.normalize(queries[start:start + query_chunk].to(device).float(), dim=1)
        skip = torch.arange(start, start + len(chunk), device=device) if leave_one_out else None
        cosine, index = nearest(chunk, gallery, k, gallery_chunk, skip)
        votes = vote(cosine, gallery_labels.to(device)[index], num_classes, temperature)
        found.append(votes.topk(ranks, dim=1).indices.cpu())
    return torch.cat(found)


def top_k(ranked: Tensor, labels: Tensor) -> dict[str, float]:
    """``top1``, and ``top5`` if so many are ranked, in percent.

    Args:
        ranked: (m, r) classes, best first.
        labels: (m,).
    """
    correct = (ranked == labels.cpu()[:, None]).sum(dim=0)
    percent = (100.0 * correct.cumsum(0).double() / len(labels)).tolist()
    return {'top1': percent[0], **({'top5': percent[4]} if len(percent) >= 5 else {})}


def nearest(queries: Tensor, gallery: Tensor, k: int, chunk: int,
            skip: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The most similar rows of the gallery, which is gone through in chunks.

    Args:
        queries: (b, D) of unit length.
        gallery: (n, D) of any length.
        k: how many; n if that is less.
        chunk: rows of the gallery at a time.
        skip: (b,) for each query a row that does not count, or None.

    Returns:
        cosines (b, k) and rows (b, k); a skipped row has cosine -inf.
    """
    best = queries.new_empty(len(queries), 0)
    rows = torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)
    for start in range(0, len(gallery), chunk):
        part = F.normalize(gallery[start:start + chunk].to(queries.device).float(), dim=1)
        cosine = queries @ part.T
        if skip is not None:
            mine = (skip >= start) & (skip < start + len(part))
            cosine[mine, skip[mine] - start] = -torch.inf
        near, row = cosine.topk(min(k, len(part)), dim=1)
        best, rows = torch.cat([best, near], dim=1), torch.cat([rows, row + start], dim=1)
        best, order = best.topk(min(k, best.shape[1]), dim=1)
        rows = rows.gather(1, order)
    return best, rows


def vote(cosine: Tensor, labels: Tensor, num_classes: int, temperature: float) -> Tensor:
    """(b, num_classes) sums of exp(cosine / temperature) for neighbours (b, k).

    Up to a factor a query: the largest exponent is taken off, so that no temperature overflows.
    """
    weights = ((cosine - cosine.amax(dim=1, keepdim=True)) / temperature).exp()
    return weights.new_zeros(len(cosine), num_classes).scatter_add_(1, labels, weights)


def check_voting(k: int, temperature: float) -> None:
    """Raises MilanError unless so many neighbours can vote so sharply."""
    if k < 1 or temperature <= 0:
        raise MilanError(f'k must be at least 1 and temperature above 0, got {k}, {temperature}')


def check_features(features: Tensor, labels: Tensor, name: str) -> None:
    """Raises MilanError unless features (n, D) and labels (n,) belong together and are finite."""
    if features.ndim != 2 or len(features) != len(labels) or len(features) == 0:
        raise MilanError(f'{name}: expected features (n, D) with n labels, n at least 1, got '
                         f'{tuple(features.shape)} and {tuple(labels.shape)}')
    if not all(torch.isfinite(part).all() for part in features.split(65536)):
        raise MilanError(f'{name}: some features are NaN or infinite. The weights are damaged or '
                         'the training diverged')
