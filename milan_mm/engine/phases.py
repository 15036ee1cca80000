# SPDX-License-Identifier: Apache-2.0
"""Whether a training can have images of another size in its first epochs."""
from itertools import accumulate
from typing import Any

from mmengine.logging import print_log

from ..datasets.transforms import RandomResizedCropAndFlip
from ..errors import MilanError
from ..models.milan import MILAN
from ..unwrapped import unwrapped

_WHERE = 'phases of RandomResizedCropAndFlip'


def check_phases(runner: Any) -> None:
    """Says which sizes the images will have; nothing if they have one.

    Raises:
        MilanError: if patches do not tile one of them, no epoch is left for the whole size, or the
            training is no pretraining.
    """
    pipeline = getattr(runner.train_dataloader.dataset, 'pipeline', None)
    crop = next((step for step in getattr(pipeline, 'transforms', [])
                 if isinstance(step, RandomResizedCropAndFlip) and step.phases), None)
    if crop is None:
        return
    model = unwrapped(runner.model)
    if not isinstance(model, MILAN):
        raise MilanError(f'{_WHERE} are for pretraining, and this trains a '
                         f'{type(model).__name__}: leave them out')
    side = model.backbone.patch_size
    for size in [size for size, _ in crop.phases] + [crop.size]:
        wrong = next((length for length in size if length % side), None)
        if wrong is not None:
            below = max(wrong // side, 1) * side
            raise MilanError(f'{_WHERE}: patches of {side} do not tile images of {size[0]} x '
                             f'{size[1]}, take {below} or {below + side} in place of {wrong}')
        model.mask_generator.match_student((size[0] // side, size[1] // side))
    model.mask_generator.match_student(model.seen_grid)
    epochs, whole = sum(number for _, number in crop.phases), runner.max_epochs
    if runner.train_loop.max_epochs > 1 and epochs >= whole:
        raise MilanError(f'{_WHERE} take {epochs} epochs and the training has {whole}: leave some '
                         f'for {crop.size[0]} x {crop.size[1]}')
    ends = accumulate(number for _, number in crop.phases)
    parts = [f'{height} x {width} up to epoch {end}'
             for ((height, width), _), end in zip(crop.phases, ends)]
    print_log(f'images of {", ".join(parts)}, then of {crop.size[0]} x {crop.size[1]}',
              logger='current')
