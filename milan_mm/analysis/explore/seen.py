# SPDX-License-Identifier: Apache-2.0
"""What a model and its teacher say of one image: all that needs the whole of it."""
import math
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ...inference.images import load_pixels
from ...structures import pair
from ..diagnosis.subject import Subject
from ..visualization.rollout import cls_rollout


class Tokens(NamedTuple):
    """What encoder and teacher say of a batch.

    Attributes:
        student: (B, 1 + N, D), CLS first; of an encoder without it the mean of the patches.
        teacher: (B, 1 + N, T), or (B, N, T) from one without CLS; None without a teacher, or
            where pixels are the target.
        target: (B, N, T) what the decoder is to predict; None of an encoder alone.
        importance: (B, N), or None if nothing measures it.
    """
    student: Tensor
    teacher: Tensor | None
    target: Tensor | None
    importance: Tensor | None


class Seen(NamedTuple):
    """One image.

    Attributes:
        pixels: (3, H, W) uint8, as the model gets it.
        inputs: (1, 3, H, W) the same, normalised.
        grid: rows and columns of patches.
        tokens: see :class:`Tokens`, of this one image.
        rollout: (N,) attention rollout of the encoder from CLS.
    """
    pixels: Tensor
    inputs: Tensor
    grid: tuple[int, int]
    tokens: Tokens
    rollout: Tensor


def image_size(subject: Subject) -> tuple[int, int]:
    """Height and width of the images that a subject takes."""
    return pair(subject.backbone.img_size)


@torch.no_grad()
def look(subject: Subject, image: Image.Image) -> Seen:
    """Encodes an image, once and for all that is asked of it later."""
    pixels = load_pixels([image], image_size(subject))
    inputs = subject.normalise(pixels)
    return Seen(pixels[0], inputs, pair(subject.backbone.grid_size), tokens_of(subject, inputs),
                cls_rollout(subject.backbone, inputs)[0])


@torch.no_grad()
def tokens_of(subject: Subject, inputs: Tensor) -> Tokens:
    """Encoder and teacher on normalised pixels (B, 3, H, W)."""
    student, patches = subject.backbone(inputs)[-1], math.prod(pair(subject.backbone.grid_size))
    if student.shape[1] == patches:
        student = torch.cat([student.mean(dim=1, keepdim=True), student], dim=1)
    taught = subject.model.teach(inputs) if subject.model else None
    if subject.model and subject.reference is subject.model.target_generator:
        said = taught
    else:
        said = subject.reference(inputs) if subject.reference else None
    known = subject.reference is not None and subject.reference.measures_importance
    source = taught if subject.model and subject.model.measures_importance else said
    return Tokens(
        student, said.features if known else None,
        taught.features[:, -patches:] if taught else None,
        source.importance if known else None)
