# SPDX-License-Identifier: Apache-2.0
"""Classifiers over the images of a suite: how many each gets right in each condition."""
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...datasets.decoding import UnreadableImageError, composite, open_image
from ...datasets.stream import ImageStream
from ...errors import MilanError
from ...inference.tasks import TaskModel
from ...keyed_random import sample_key
from .corruptions import corrupt
from .suites import CLEAN, Case, Condition, Pass


class Counts(NamedTuple):
    """What a pass gave.

    Attributes:
        right: for each model and condition the number classified rightly.
        total: images that could be read.
        unreadable: paths of the others.
    """
    right: list[dict[Condition, int]]
    total: int
    unreadable: list[str]


@torch.no_grad()
def count_right(models: Sequence[TaskModel], part: Pass, choices: Sequence[int],
                batch_size: int = 64, workers: int = 2, seed: int = 0,
                progress: bool = True) -> Counts:
    """Classifies each image in each condition with every model.

    An image is read, resized and cropped once, by the first model's test pipeline, and corrupted
    then, at the size the network sees, as ImageNet-C's were. All models see the same pixels.

    Args:
        models: classifiers with the same outputs, of the same config.
        part: the images and conditions.
        choices: outputs that may win; images' labels are among them.
        batch_size: pixels of so many conditions or images at a time.
        workers: processes that read and corrupt; 0 does it in this one.
        seed: seed of the corruptions.
        progress: whether to show it on the terminal.

    Raises:
        MilanError: if no image can be read, or a model has other outputs.
    """
    views = Corrupted(models[0], part, seed)
    stream = ImageStream(views, max(batch_size // len(part.conditions), 1), workers,
                         title=part.title if progress else None)
    right: list[dict[Condition, int]] = [dict.fromkeys(part.conditions, 0) for _ in models]
    winners = torch.tensor(sorted(set(choices)))
    for numbers, images in stream:
        cases = [(part.images[i].label, condition)
                 for i in numbers for condition in part.conditions]
        pixels = [view for image in images for view in image]
        for start in range(0, len(cases), batch_size):
            some = slice(start, start + batch_size)
            for model, counted in zip(models, right):
                for (label, condition), answer in zip(
                        cases[some], predict(model, pixels[some], winners)):
                    counted[condition] += int(answer == label)
    return Counts(right, len(part.images) - len(stream.unreadable), stream.unreadable)


def predict(trained: TaskModel, pixels: Sequence[Tensor], winners: Tensor) -> list[int]:
    """The output with the largest logit among ``winners``, for each image (3, H, W)."""
    same = len({tuple(p.shape) for p in pixels}) == 1
    inputs: Any = torch.stack(list(pixels)) if same else list(pixels)
    batch = trained.model.data_preprocessor(dict(inputs=inputs, data_samples=None), False)
    logits = trained.model(batch['inputs'], mode='tensor')
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] <= int(winners.max()):
        raise MilanError(f'{type(trained.model).__name__} gives no logits (B, classes) of at least '
                         f'{int(winners.max()) + 1} classes; expected an ImageClassifier')
    return winners[logits[:, winners.to(logits.device)].argmax(dim=1).cpu()].tolist()


class Corrupted:
    """Images as uint8 (conditions, 3, H, W), for an :class:`ImageStream`."""

    def __init__(self, trained: TaskModel, part: Pass, seed: int = 0) -> None:
        self.part, self.seed, self.as_array = part, seed, trained.as_array
        *self.before, self.pack = trained.pipeline.transforms
        if not type(self.pack).__name__.startswith('Pack') or trained.dtype is not np.uint8:
            raise MilanError('the config\'s test pipeline must read uint8 and end in a step that '
                             'packs, such as milan_mm.PackImageInputs or mmpretrain.PackInputs; it '
                             f'ends in {type(self.pack).__name__}')

    def __len__(self) -> int:
        return len(self.part.images)

    def path(self, index: int) -> str:
        """Of an image's file."""
        return self.part.images[index].path

    def pixels(self, index: int) -> Tensor | None:
        """An image in all conditions; None if it cannot be decoded."""
        image = self.part.images[index]
        try:
            results = self.read(image)
        except UnreadableImageError:
            return None
        views = []
        for condition in self.part.conditions:
            view = dict(results)
            if self.part.apply and condition != CLEAN:
                view['img'] = self.corrupted(results['img'], image, condition)
            views.append(self.pack(view)['inputs'])
        return torch.stack(views)

    def read(self, case: Case) -> dict:
        """What the pipeline has made of an image before it packs it."""
        image = composite(open_image(case.path))
        size = image.size[::-1]
        pixels: Any = image
        if self.as_array:
            pixels = np.ascontiguousarray(np.asarray(image)[..., ::-1])
        results = dict(img=pixels, img_path=case.path, img_id=0, ori_shape=size, img_shape=size)
        for step in self.before:
            results = step(results)
        return results

    def corrupted(self, img: Any, case: Case, condition: Condition) -> Any:
        """The same kind of image as ``img``: Pillow's, or an array in BGR."""
        name, severity = condition
        key = sample_key(self.seed, 0, 0, f'{case.name}/{name}/{severity}')
        if isinstance(img, Image.Image):
            return Image.fromarray(corrupt(np.asarray(img), name, severity, key))
        return np.ascontiguousarray(corrupt(img[..., ::-1], name, severity, key)[..., ::-1])
