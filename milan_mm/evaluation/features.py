# SPDX-License-Identifier: Apache-2.0
"""An encoder over a folder of images."""
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..datasets import ImageFolder
from ..datasets.stream import ImageStream, central_crops
from ..inference.encoders import Extractor


class FeatureTable(NamedTuple):
    """Features of a folder, one row an image that could be read, in the order of the paths.

    Attributes:
        features: (n, D) float32 on the CPU, for each kind that was asked for.
        labels: (n,) int64, of a labelled folder; else -1.
        paths: of the n images.
        classes: names, by label.
        unreadable: paths of the images that could not be decoded.
    """
    features: dict[str, Tensor]
    labels: Tensor
    paths: list[str]
    classes: tuple[str, ...]
    unreadable: list[str]


def image_folder(extractor: Extractor, root: str | Path, with_label: bool) -> ImageFolder:
    """The images below a folder as this extractor wants them."""
    return central_crops(root, extractor.img_size, extractor.crop_ratio, with_label)


@torch.no_grad()
def collect_features(extractor: Extractor,
                     dataset: ImageFolder,
                     kinds: Sequence[str] = ('cls', ),
                     batch_size: int = 64,
                     workers: int = 2,
                     name: str | None = None) -> FeatureTable:
    """Features of every image of a folder, in memory: 4 · n · D bytes a kind, and a batch.

    Draws nothing from the global random generators.

    Args:
        extractor: on the device to compute on.
        dataset: of :func:`image_folder`.
        kinds: any of 'cls' and 'pooled'. Patch features: see :func:`extract_features`.
        batch_size: images at a time.
        workers: processes that decode; 0 decodes in this one.
        name: for the progress on the terminal; None shows none.

    Raises:
        MilanError: if no image can be decoded.
    """
    n = len(dataset)
    rows = {kind: torch.empty(n, extractor.dim) for kind in kinds}
    infos: list[dict] = []
    count = 0
    stream = ImageStream(dataset, batch_size, workers, title=name)
    for numbers, pixels in stream:
        found = extractor(extractor.normalise(pixels))
        for kind, store in rows.items():
            store[count:count + len(numbers)] = getattr(found, kind).float().cpu()
        infos += map(dataset.get_data_info, numbers)
        count += len(numbers)
    return FeatureTable(
        features={kind: store[:count] for kind, store in rows.items()},
        labels=torch.tensor([info.get('gt_label', -1) for info in infos], dtype=torch.long),
        paths=[info['img_path'] for info in infos],
        classes=tuple(dataset.metainfo.get('classes', ())),
        unreadable=stream.unreadable)


@contextlib.contextmanager
def evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """Within it the module is in eval mode; then each of its parts is in the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
