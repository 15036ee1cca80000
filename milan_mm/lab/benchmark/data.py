# SPDX-License-Identifier: Apache-2.0
"""From a JPEG file to a packed sample: this package's transforms and mmpretrain's, in turns."""
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose

from ...keyed_random import seeded_globals
from .measuring import faster, report, take_turns
from .photographs import photograph

_CROP: list[dict[str, Any]] = [
    dict(type='milan_mm.RandomResizedCropAndFlip', size=224, scale=(0.2, 1.0)),
    dict(type='milan_mm.PackImageInputs')]
THEIRS = 'mmpretrain'
PIPELINES: dict[str, list[dict[str, Any]]] = {
    'milan_mm, scaled_jpegs=True': [
        dict(type='milan_mm.LoadPILImage', scaled_jpegs=True), *_CROP],
    'milan_mm': [dict(type='milan_mm.LoadPILImage'), *_CROP],
    THEIRS: [
        dict(type='mmpretrain.LoadImageFromFile'),
        dict(type='mmpretrain.RandomResizedCrop', scale=224, crop_ratio_range=(0.2, 1.0),
             backend='pillow', interpolation='bicubic'),
        dict(type='mmpretrain.RandomFlip', prob=0.5),
        dict(type='mmpretrain.PackInputs')],
}
# Width, height, quality, number of files, and for how many images of the first one of these stands.
SIZES = ((500, 375, 90, 8, 1), (500, 375, 75, 8, 1),
         (4000, 3000, 90, 2, 25), (4000, 3000, 75, 2, 25))


def benchmark(num_images: int = 200, turns: int = 5, json_file: str | None = None,
              sizes: Sequence[tuple[int, int, int, int, int]] = SIZES) -> None:
    """Prints images per second of one core's time, and by how much the pixels differ.

    Args:
        num_images: of the smallest size in a turn.
        turns: counted ones.
        json_file: see :func:`report`.
        sizes: as :data:`SIZES`.
    """
    rows, every, threads = [], {}, (torch.get_num_threads(), cv2.getNumThreads())
    torch.set_num_threads(1)  # as in a worker of a loader
    cv2.setNumThreads(0)
    pipelines = {name: Compose(steps) for name, steps in PIPELINES.items()}
    with tempfile.TemporaryDirectory() as folder:
        for width, height, quality, count, share in sizes:
            files = _photographs(Path(folder), width, height, quality, count)
            images = max(count, num_images // share)
            seconds = take_turns({name: _reader(pipeline, files, images)
                                  for name, pipeline in pipelines.items()}, turns)
            every[f'{width} x {height}, quality {quality}'] = seconds
            decoding = _decoding(files)
            size = sum(Path(file).stat().st_size for file in files) / count / 1e6
            rows += [{'JPEGs': f'{width} x {height}, {size:.2g} MB',
                      'decoding, ms': decoding * 1e3, 'pipeline': name,
                      'images/s': images / statistics.median(took),
                      f'times {THEIRS}': None if name == THEIRS else str(
                          faster(took, seconds[THEIRS])),
                      'levels of 255 off': _difference(pipelines, name, files)}
                     for name, took in seconds.items()]
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])
    report('From JPEG files to crops of 224 px on one core. Decoding is that at an eighth of the '
           'size, which no loader can do without', rows, json_file, seconds=every)


def _photographs(folder: Path, width: int, height: int, quality: int, count: int) -> list[str]:
    files = [str(folder / f'{width} {quality} {i}.jpg') for i in range(count)]
    for i, file in enumerate(files):
        photograph(width, height, np.random.default_rng(i)).save(file, quality=quality)
    return files


def _reader(pipeline: Compose, files: Sequence[str], num_images: int) -> Callable[[], float]:
    def read() -> float:
        with seeded_globals(0):
            start = time.process_time()
            for i in range(num_images):
                pipeline(dict(img_path=files[i % len(files)]))
            return time.process_time() - start
    return read


def _difference(pipelines: dict[str, Compose], name: str, files: Sequence[str],
                crops: int = 16) -> float | None:
    """Mean of absolute differences to the whole image decoded and resized by Pillow."""
    if name == THEIRS:  # which draws other boxes
        return None
    differences = []
    for i in range(crops):
        pair = []
        for each in (name, 'milan_mm'):
            with seeded_globals(i):
                sample = pipelines[each](dict(img_path=files[i % len(files)]))
            pair.append(sample['inputs'].float())
        differences.append(float((pair[0] - pair[1]).abs().mean()))
    return statistics.mean(differences)


def _decoding(files: Sequence[str]) -> float:
    """Seconds an image, at the smallest scale: what is left is to read the compressed bits."""
    contents = [np.fromfile(file, np.uint8) for file in files]
    start = time.process_time()
    for content in contents * 5:
        cv2.imdecode(content, cv2.IMREAD_REDUCED_COLOR_8)
    return (time.process_time() - start) / len(contents) / 5
