# SPDX-License-Identifier: Apache-2.0
"""One training step on given images, with everything kept that is worth looking at."""
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...datasets import LoadPILImage, PackImageInputs, ResizeAndCenterCrop
from ...inference.pretraining import load_run
from ...keyed_random import sample_key
from ...models import MILAN


class Look(NamedTuple):
    """What happened to a batch in one step.

    Attributes:
        pixels: (B, 3, H, W) uint8, what was shown.
        importance: (B, N), each row sums to 1.
        visible: (B, V) raster indices of the patches the student saw.
        error: (B, N) loss of each patch's prediction; 2 - 2 cos for MILAN, in 0..4.
        measure: (B, N) the same as the log measures it; the cosine for MILAN.
        target: (B, N, T) the teacher's features.
        predicted: (B, N, T) what the decoder made of the visible patches.
        student: (B, N, D) the encoder's features of the whole image, nothing masked.
        grid: rows and columns of patches.
    """
    pixels: Tensor
    importance: Tensor
    visible: Tensor
    error: Tensor
    measure: Tensor
    target: Tensor
    predicted: Tensor
    student: Tensor
    grid: tuple[int, int]


def load_milan(config: str | Path, checkpoint: str | Path,
               teacher: str | Path) -> MILAN:
    """The model of a training, in eval mode, with exactly the checkpoint's weights.

    Args:
        config: of the training, such as ``configs/quickstart/milan.py``.
        checkpoint: that the training wrote; nothing in it is executed.
        teacher: file or folder of the teacher, which no checkpoint holds.

    Raises:
        MilanError: if the checkpoint does not hold this model, tensor by tensor.
    """
    return load_run(checkpoint, config, teacher)


def load_pixels(paths: Sequence[str | Path], size: tuple[int, int]) -> Tensor:
    """The largest central crop of each image, (B, 3, H, W) uint8.

    Args:
        paths: of the images.
        size: H and W.
    """
    crop, pack = ResizeAndCenterCrop(size, crop_ratio=1), PackImageInputs()
    load = LoadPILImage()
    return torch.stack([pack(crop(load(dict(img_path=str(p)))))['inputs'] for p in paths])


@torch.no_grad()
def look(model: MILAN, pixels: Tensor, seed: int = 0) -> Look:
    """Teach, mask, encode, decode, compare, as :meth:`MILAN.loss` does.

    Args:
        model: of :func:`load_milan`.
        pixels: (B, 3, H, W) uint8, of the size the model was trained on.
        seed: the mask of image i is a function of it and of i.
    """
    device = next(model.parameters()).device
    keys = torch.tensor([sample_key(seed, 0, i, 'look') for i in range(len(pixels))])
    inputs = model.data_preprocessor(dict(inputs=pixels))['inputs'].to(device)
    target = model.target_generator(inputs)
    importance = model.importance(inputs, target.importance)
    masks = model.mask_generator(importance, keys.to(device))
    pred = masks.to_raster(model.neck(model.backbone(inputs, masks.visible), masks))[:, 1:]
    patches = importance.shape[1]
    features = target.features[:, -patches:]  # without the CLS token, where there is one
    error = model.head.loss_module(pred, features)
    return Look(
        pixels=pixels,
        importance=importance / importance.sum(dim=1, keepdim=True),
        visible=masks.visible,
        error=error,
        measure=model.head.loss_module.as_measure(error),
        target=features,
        predicted=pred,
        student=model.backbone(inputs)[-1][:, 1:],
        grid=model.backbone.grid_size)
