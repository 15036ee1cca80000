# SPDX-License-Identifier: Apache-2.0
"""From a JPEG file to a packed sample: this package's transforms and mmpretrain's, in turns."""
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from PIL import Image

from .measuring import faster, report, take_turns

PIPELINES: dict[str, list[dict[str, Any]]] = {
    'milan_mm': [
        dict(type='milan_mm.LoadPILImage'),
        dict(type='milan_mm.RandomResizedCropAndFlip', size=224, scale=(0.2, 1.0)),
        dict(type='milan_mm.PackImageInputs')],
    'mmpretrain': [
        dict(type='mmpretrain.LoadImageFromFile'),
        dict(type='mmpretrain.RandomResizedCrop', scale=224, crop_ratio_range=(0.2, 1.0),
             backend='pillow', interpolation='bicubic'),
        dict(type='mmpretrain.RandomFlip', prob=0.5),
        dict(type='mmpretrain.PackInputs')],
}


def benchmark(num_images: int = 200, turns: int = 5, json_file: str | None = None) -> None:
    """Prints images per second on one core.

    Args:
        num_images: in a turn.
        turns: counted ones.
        json_file: see :func:`report`.
    """
    size = (500, 375)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'image.jpg'
        noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(file, quality=90)
        seconds = take_turns({name: _reader(Compose(steps), str(file), num_images)
                              for name, steps in PIPELINES.items()}, turns)
    rows = [{'pipeline': name, 'images/s': num_images / sorted(took)[len(took) // 2],
             'ratio': str(faster(took, seconds['mmpretrain']))} for name, took in seconds.items()]
    report(f'Loading JPEGs of {size[0]} x {size[1]}, one process', rows, json_file, seconds=seconds)


def _reader(pipeline: Compose, file: str, num_images: int) -> Callable[[], float]:
    def read() -> float:
        start = time.perf_counter()
        for _ in range(num_images):
            pipeline(dict(img_path=file))
        return time.perf_counter() - start
    return read
