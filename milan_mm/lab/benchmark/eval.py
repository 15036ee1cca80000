# SPDX-License-Identifier: Apache-2.0
"""From images to k-NN accuracy: the encoder's features, and the vote."""
import contextlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmpretrain.registry import MODELS as MMPRETRAIN
from torch import Tensor, nn
from torch.nn import functional as F

from ...evaluation.knn import knn_accuracy
from ...inference.device import check_device
from ...models.encoder import MaskedVisionTransformer
from .measuring import faster, report, take_turns

_GALLERY, _QUERIES, _WIDTH, _CLASSES = 20000, 2000, 768, 100


def benchmark(batch_size: int = 8, turns: int = 5, device: str | None = None,
              json_file: str | Path | None = None) -> None:
    """Prints images per second of each part.

    Args:
        batch_size: images in a forward pass.
        turns: counted ones.
        device: where; None for a GPU if there is one.
        json_file: see :func:`report`.
    """
    place = check_device(device)
    pixels = torch.randn(batch_size, 3, 224, 224, device=place)
    ours = MaskedVisionTransformer('vit-b').to(place)
    theirs = MMPRETRAIN.build(dict(type='mmpretrain.VisionTransformer', arch='b',
                                   out_type='cls_token')).to(place)
    ours.eval(), theirs.eval()  # mmpretrain's gives nothing back
    gallery, queries = (torch.randn(n, _WIDTH, device=place) for n in (_GALLERY, _QUERIES))
    labels = torch.randint(_CLASSES, (_GALLERY, ), device=place)
    pairs = {
        'features of a ViT-B': (batch_size, {
            'milan_mm': _forward(ours, pixels), 'milan_mm, bfloat16': _forward(ours, pixels, True),
            'mmpretrain': _forward(theirs, pixels)}),
        f'k-NN in {_GALLERY:,} images': (_QUERIES, {
            'milan_mm': lambda: knn_accuracy(gallery, labels, queries, labels[:_QUERIES], _CLASSES,
                                             device=str(place)),
            'plain torch': lambda: _plain_vote(gallery, labels, queries)}),
    }
    rows = []
    for part, (count, contenders) in pairs.items():
        seconds = take_turns({name: _timed(run, place) for name, run in contenders.items()}, turns)
        base = list(seconds)[-1]
        rows += [dict(part=part, contender=name, times=str(faster(took, seconds[base])),
                      **{'images/s': count / statistics.median(took)})
                 for name, took in seconds.items()]
    report(f'Evaluation, 224 px, batch {batch_size}, {place}; times: the rate by that of the last '
           'of each part', rows, json_file, place)


def _forward(model: nn.Module, pixels: Tensor, half: bool = False) -> Callable[[], object]:
    def run() -> object:
        precision = torch.autocast(pixels.device.type, torch.bfloat16) if half else (
            contextlib.nullcontext())
        with torch.inference_mode(), precision:
            return model(pixels)
    return run


def _timed(run: Callable[[], object], place: torch.device) -> Callable[[], float]:
    def timed() -> float:
        start = time.perf_counter()
        run()
        if place.type == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter() - start
    return timed


def _plain_vote(gallery: Tensor, labels: Tensor, queries: Tensor, k: int = 20) -> Tensor:
    """The vote as a few lines write it, with all similarities at once."""
    near, which = (F.normalize(queries, dim=1) @ F.normalize(gallery, dim=1).T).topk(k)
    votes = queries.new_zeros(len(queries), _CLASSES)
    return votes.scatter_add_(1, labels[which], (near / 0.07).exp()).argmax(dim=1)
