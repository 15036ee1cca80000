# SPDX-License-Identifier: Apache-2.0
"""Partial finetuning: the last n blocks are trained, those before stay (He et al. 2022, Sec. 4.3).

Between a linear probe (0 blocks) and finetuning (all of them): it tells features that are good but
not linearly so from features that are not.
"""
import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..datasets import LoadPILImage, PackImageInputs, ResizeAndCenterCrop
from ..datasets.sampler import SampleIndex
from ..datasets.stream import ImageStream
from ..datasets.transforms import RandomResizedCropAndFlip
from ..errors import MilanError, UnreadableImageError
from ..inference.encoders import Extractor, FeatureExtractor
from ..keyed_random import sample_key, seeded_globals


def partial_finetune(extractor: Extractor,
                     train: tuple[Sequence[str], Tensor],
                     test: tuple[Sequence[str], Tensor],
                     num_classes: int,
                     blocks: int,
                     feature: str = 'cls',
                     epochs: int = 10,
                     lr: float = 5e-4,
                     batch_size: int = 64,
                     weight_decay: float = 0.05,
                     scale: tuple[float, float] = (0.35, 1.0),
                     workers: int = 2,
                     seed: int = 0,
                     progress: bool = True) -> dict[str, Any]:
    """Trains a copy of the encoder's last blocks with a linear head; the encoder itself stays.

    AdamW, a tenth of the steps warm-up, cosine to 0; random crops and flips; the head is BatchNorm
    without affine and a linear map from 0, as in the linear probe. Equal arguments give equal
    results.

    Args:
        extractor: of :func:`milan_mm.get_model`, on the device to compute on.
        train: paths of readable images, and their labels (n,).
        test: the same, to be classified.
        num_classes: labels are below it.
        blocks: how many, counted from the end; the final norm is trained with them. All of them
            includes the patch embedding and the CLS token. 0 trains the head alone.
        feature: 'cls' or 'pooled', what the head sees.
        epochs: over the training images.
        lr: the learning rate at a batch of 64; it grows with the batch.
        batch_size: no more than there are images.
        weight_decay: of matrices; biases and norms have none.
        scale: area of the random crops, as a share of the image.
        workers: processes that decode.
        seed: of order and augmentation.
        progress: whether to show it on the terminal.

    Returns:
        ``top1``, ``top5`` if there are at least 5 classes, in percent; what describes the training.

    Raises:
        MilanError: if the encoder is not one that can be trained, has fewer blocks, or diverged.
    """
    check_partial(extractor, blocks, epochs, lr, batch_size)
    tuned = copy.deepcopy(extractor).eval()
    head = _head(extractor.dim, num_classes).to(extractor.pixel_mean.device)
    trained = [*_unfrozen(tuned.backbone, blocks), *head.parameters()]
    batch_size = min(batch_size, len(train[0]))
    steps = epochs * (len(train[0]) // batch_size)
    lr = lr * batch_size / 64
    data = _Images(train[0], [LoadPILImage(), RandomResizedCropAndFlip(tuned.img_size, scale),
                              PackImageInputs()])
    stream = ImageStream(
        data, batch_size, workers, _order(len(data), batch_size, epochs, seed), steps * batch_size,
        title=f'last {blocks} blocks' if progress else None)
    _train(tuned, head, feature, trained, stream, train[1], steps, lr, weight_decay)
    if not all(torch.isfinite(p).all() for p in trained):
        raise MilanError(f'partial finetuning of {blocks} blocks diverged; lower --partial-lr')
    accuracy = _accuracy(tuned, head.eval(), feature, test, batch_size, workers, num_classes)
    return {**accuracy, 'blocks': blocks, 'of': len(tuned.backbone.layers), 'epochs': epochs,
            'lr': lr, 'batch_size': batch_size, 'parameters': sum(p.numel() for p in trained)}


def check_partial(extractor: Any, blocks: int, epochs: int = 10, lr: float = 5e-4,
                  batch_size: int = 64, **_: Any) -> None:
    """Raises MilanError unless :func:`partial_finetune` can take these."""
    if not isinstance(extractor, FeatureExtractor):
        raise MilanError('--partial trains an encoder of get_model on whole images; a teacher '
                         'stays frozen, and --masking is for measuring')
    depth = len(extractor.backbone.layers)
    if not 0 <= blocks <= depth or epochs < 1 or batch_size < 2 or lr <= 0:
        raise MilanError(f'--partial takes 0 to {depth} blocks of this encoder, at least 1 epoch, '
                         f'a batch of at least 2 and lr above 0, got {blocks}, {epochs}, '
                         f'{batch_size} and {lr}')


def _train(tuned: FeatureExtractor, head: nn.Module, feature: str, trained: list[nn.Parameter],
           stream: ImageStream, labels: Tensor, steps: int, lr: float,
           weight_decay: float) -> None:
    optimizer = torch.optim.AdamW([
        dict(params=[p for p in trained if p.ndim > 1], weight_decay=weight_decay),
        dict(params=[p for p in trained if p.ndim <= 1], weight_decay=0.0)], lr=lr)
    for step, (numbers, pixels) in enumerate(stream):
        for group in optimizer.param_groups:
            group['lr'] = lr * _schedule(step, steps)
        with torch.enable_grad():
            logits = head(getattr(tuned(tuned.normalise(pixels)), feature))
            loss = F.cross_entropy(logits, labels[numbers].to(logits.device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()


def _head(dim: int, num_classes: int) -> nn.Sequential:
    linear = nn.utils.skip_init(nn.Linear, dim, num_classes)  # draws nothing
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.BatchNorm1d(dim, eps=1e-6, affine=False), linear)


def _unfrozen(backbone: nn.Module, blocks: int) -> list[nn.Parameter]:
    """Parameters of the last blocks and the norm after them, now trainable."""
    parts: list[nn.Module] = []
    if blocks:
        parts = [*backbone.layers[-blocks:], *([backbone.ln1] if backbone.final_norm else [])]
    found = [p for part in parts for p in part.parameters()]
    if blocks == len(backbone.layers):
        found += [*backbone.patch_embed.parameters(),
                  *(p for name, p in backbone.named_parameters()
                    if name in ('cls_token', 'register_tokens'))]
    return [p.requires_grad_(True) for p in found]


def _schedule(step: int, steps: int) -> float:
    warmup = max(steps // 10, 1)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def _order(n: int, size: int, epochs: int, seed: int) -> Iterator[SampleIndex]:
    """All epochs in one row, so that workers start once; a smaller last batch is left out."""
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed(sample_key(seed, epoch, 0, 'partial order'))
        for i in torch.randperm(n, generator=generator).tolist()[:n // size * size]:
            yield SampleIndex(i, seed, epoch)


class _Images:
    """Paths with what is done to an image; what is drawn follows from (seed, epoch, sample)."""

    def __init__(self, paths: Sequence[str], steps: Sequence[Any]) -> None:
        self.paths, self.steps = list(paths), steps

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str:
        """Of an image's file."""
        return self.paths[index]

    def pixels(self, index: int) -> Tensor | None:
        """Of an image, uint8 (3, H, W); None if it cannot be decoded any more."""
        sample: dict[str, Any] = dict(img_path=self.paths[index])
        key = sample_key(getattr(index, 'seed', 0), getattr(index, 'epoch', 0), index, 'partial')
        with seeded_globals(key):
            try:
                for step in self.steps:
                    sample = step(sample)
            except UnreadableImageError:
                return None
        return sample['inputs']


@torch.no_grad()
def _accuracy(tuned: FeatureExtractor, head: nn.Module, feature: str,
              test: tuple[Sequence[str], Tensor], batch_size: int, workers: int,
              num_classes: int) -> dict[str, float]:
    data = _Images(test[0], [LoadPILImage(), ResizeAndCenterCrop(tuned.img_size, tuned.crop_ratio),
                           PackImageInputs()])
    ranks = min(5, num_classes)
    correct = torch.zeros(ranks, dtype=torch.long)
    for numbers, pixels in ImageStream(data, batch_size, workers):
        ranked = head(getattr(tuned(tuned.normalise(pixels)), feature)).topk(ranks, dim=1).indices
        correct += (ranked.cpu() == test[1][numbers, None]).sum(dim=0)
    percent = (100.0 * correct.cumsum(0).double() / len(data)).tolist()
    return {'top1': percent[0], **({'top5': percent[4]} if num_classes >= 5 else {})}
