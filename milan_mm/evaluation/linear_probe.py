# SPDX-License-Identifier: Apache-2.0
"""Linear probing on stored features: BatchNorm without affine, then a linear map (MILAN Sec. 4.2).

The encoder is frozen and the images are not augmented, so features are computed once. Two
solvers of the same classifier: L-BFGS, which finds the minimum whatever the size of the set, and
the paper's LARS schedule, which is made for ImageNet's size and underfits small sets.
"""
import math
from typing import Any

import torch
from mmpretrain.engine.optimizers import LARS
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import MilanError
from .knn import check_features, top_k

# Penalties tried, strongest first: each solution is the start of the next.
L2_GRID = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
_EPS = 1e-6  # of BatchNorm, as in MAE's and MILAN's probes
_CHUNK = 16384
_WARMUP_EPOCHS = 10


def linear_probe(train: Tensor,
                 train_labels: Tensor,
                 test: Tensor,
                 test_labels: Tensor,
                 num_classes: int,
                 solver: str = 'lbfgs',
                 device: str = 'cpu',
                 seed: int = 0,
                 **options: Any) -> dict[str, Any]:
    """Trains the probe and measures it; arguments as of :func:`probe_classes`.

    Returns:
        ``top1``, ``top5`` if there are at least 5 classes, in percent; ``solver`` and what
        describes it.
    """
    check_features(test, test_labels, 'test features')
    ranked, said = probe_classes(train, train_labels, test, num_classes, solver, device, seed,
                                 **options)
    return {**top_k(ranked, test_labels), **said}


def probe_classes(train: Tensor,
                  train_labels: Tensor,
                  test: Tensor,
                  num_classes: int,
                  solver: str = 'lbfgs',
                  device: str = 'cpu',
                  seed: int = 0,
                  **options: Any) -> tuple[Tensor, dict[str, Any]]:
    """Trains the probe and asks it. Equal arguments give equal results.

    Args:
        train: (n, D) features; so ordered that near duplicates are neighbours, as sorted file
            names mostly are, since 'lbfgs' holds out the last fifth of each class.
        train_labels: (n,) int64.
        test: (m, D).
        num_classes: labels are below it.
        solver: 'lbfgs' (see :func:`fit_lbfgs`) or 'lars' (see :func:`fit_lars`).
        device: where the probe is computed; features are brought there in chunks.
        seed: of the order and the start of 'lars'.
        **options: of the solver.

    Returns:
        The classes it names, best first, (m, 5) or fewer if there are fewer; and what describes
        the probe.

    Raises:
        MilanError: if the solver is unknown, or there are fewer than 2 classes.
    """
    check_features(train, train_labels, 'training features')
    if len(train_labels.unique()) < 2:
        raise MilanError('a linear probe needs at least 2 classes to train on, got 1')
    if solver == 'lbfgs':
        mean, scale = batch_norm_statistics(train)
        classifier, said = fit_lbfgs(
            train, train_labels, num_classes, mean, scale, device, **options)
    elif solver == 'lars':
        classifier, mean, scale, said = fit_lars(
            train, train_labels, num_classes, device, seed, **options)
    else:
        raise MilanError(f"solver must be 'lbfgs' or 'lars', got {solver!r}")
    ranked = _ranked(classifier, mean, scale, test, device)
    return ranked, {'solver': solver, **said, 'augmentation': 'none'}


def batch_norm_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """What BatchNorm without affine subtracts and multiplies with, over the whole set, (D,)."""
    n = len(features)
    mean = sum(part.double().sum(dim=0) for part in features.split(_CHUNK)) / n
    square = sum((part.double() - mean).square().sum(dim=0) for part in features.split(_CHUNK))
    return mean.float(), (square / n + _EPS).rsqrt().float()


def fit_lbfgs(train: Tensor, labels: Tensor, num_classes: int, mean: Tensor, scale: Tensor,
              device: str, max_iter: int = 200,
              l2: float | None = None) -> tuple[nn.Linear, dict[str, Any]]:
    """Minimises cross entropy + l2 / 2 · |weight|^2 over the whole set.

    l2 is the one of :data:`L2_GRID` that is best on the last fifth of each class when trained on
    the rest (of equals, the strongest); then the probe is trained on all. One that is given is not
    chosen.
    """
    fit_rows, held_rows = _hold_out(labels)
    chosen, start = l2 is None, _zero_linear(train.shape[1], num_classes, device)
    l2 = 1e-3 if l2 is None else l2
    if chosen and len(held_rows):
        best = -1.0
        probe = _zero_linear(train.shape[1], num_classes, device)
        for candidate in L2_GRID:
            _minimise(probe, train, labels, fit_rows, mean, scale, candidate, max_iter)
            score = top_k(_ranked(probe, mean, scale, train[held_rows], device),
                          labels[held_rows])['top1']
            if score > best:
                best, l2 = score, candidate
                start.load_state_dict(probe.state_dict())
    steps = _minimise(start, train, labels, None, mean, scale, l2, max_iter)
    return start, {'l2': l2, 'iterations': steps}


def fit_lars(train: Tensor,
             labels: Tensor,
             num_classes: int,
             device: str,
             seed: int,
             batch_size: int = 16384,
             base_lr: float = 0.05,
             epochs: int = 90) -> tuple[nn.Linear, Tensor, Tensor, dict[str, Any]]:
    """The paper's schedule: LARS, momentum .9, no weight decay, 10 epochs of warm-up, cosine to 0.

    Args:
        batch_size: no more than the set is used.
        base_lr: the learning rate is this times batch / 256; the paper's for ViT-B is .05, for
            ViT-L .02.
        epochs: the paper's 90 for ViT-B.

    Returns:
        The classifier, BatchNorm's running mean and scale, and what describes the training.
    """
    n = len(train)
    batch_size = min(batch_size, n)
    lr = base_lr * batch_size / 256
    order_of = torch.Generator().manual_seed(seed)
    probe = _zero_linear(train.shape[1], num_classes, device)
    with torch.no_grad():  # LARS scales a step by the weight's length: zero would not do
        probe.weight.copy_(torch.randn(probe.weight.shape, generator=order_of) * 0.01)
    norm = nn.BatchNorm1d(train.shape[1], eps=_EPS, affine=False).to(device)
    optimizer = LARS(
        [dict(params=[probe.weight]), dict(params=[probe.bias], lars_exclude=True)],
        lr=lr, momentum=0.9, weight_decay=0.0)
    steps_per_epoch = max(n // batch_size, 1)
    for epoch in range(epochs):
        order = torch.randperm(n, generator=order_of)
        for step in range(steps_per_epoch):
            rows = order[step * batch_size:(step + 1) * batch_size]
            for group in optimizer.param_groups:
                group['lr'] = lr * _schedule(epoch + step / steps_per_epoch, epochs)
            loss = F.cross_entropy(
                probe(norm(train[rows].to(device).float())), labels[rows].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    said = {'batch_size': batch_size, 'lr': lr, 'epochs': epochs}
    return (probe.requires_grad_(False), norm.running_mean, (norm.running_var + _EPS).rsqrt(), said)


def _schedule(epoch: float, epochs: int) -> float:
    warmup = min(_WARMUP_EPOCHS, epochs // 2)
    if epoch < warmup:
        return epoch / warmup
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))


def _zero_linear(dim: int, num_classes: int, device: str) -> nn.Linear:
    # skip_init: nn.Linear's own start would draw from the global generator.
    linear = nn.utils.skip_init(nn.Linear, dim, num_classes, device=device)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _hold_out(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Rows to fit on and rows held out: of each class the last fifth, none of a class of one."""
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        rows = (labels == label).nonzero().flatten()
        if len(rows) > 1:
            held[rows[-max(len(rows) // 5, 1):].cpu()] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def _minimise(probe: nn.Linear, features: Tensor, labels: Tensor, rows: Any, mean: Tensor,
              scale: Tensor, l2: float, max_iter: int) -> int:
    """L-BFGS from where ``probe`` stands; ``rows`` None for all. Returns its iterations."""
    device = probe.weight.device
    mean, scale = mean.to(device), scale.to(device)
    rows = torch.arange(len(features)) if rows is None else rows
    optimizer = torch.optim.LBFGS(
        probe.parameters(), max_iter=max_iter, history_size=10, tolerance_grad=1e-5,
        tolerance_change=1e-7, line_search_fn='strong_wolfe')

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = l2 / 2 * probe.weight.square().sum()
        loss.backward()
        loss = loss.detach()
        for part in rows.split(_CHUNK):
            x = (features[part].to(device).float() - mean) * scale
            chunk = F.cross_entropy(probe(x), labels[part].to(device), reduction='sum') / len(rows)
            chunk.backward()
            loss = loss + chunk.detach()
        return loss

    probe.requires_grad_(True)
    with torch.enable_grad():
        optimizer.step(closure)
    probe.requires_grad_(False)
    return optimizer.state[probe.weight]['n_iter']


@torch.no_grad()
def _ranked(probe: nn.Linear, mean: Tensor, scale: Tensor, features: Tensor,
            device: str) -> Tensor:
    """The classes that the probe names, best first, on the CPU."""
    mean, scale = mean.to(device), scale.to(device)
    return torch.cat([
        probe((part.to(device).float() - mean) * scale).topk(
            min(5, probe.out_features), dim=1).indices.cpu()
        for part in features.split(_CHUNK)])
