# SPDX-License-Identifier: Apache-2.0
"""An encoder over a folder of images."""
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..datasets import ImageFolder, LoadPILImage, PackImageInputs, ResizeAndCenterCrop
from ..errors import MilanError
from ..inference.encoders import Extractor, Features
from ..progress import Progress
from ..wording import some_of


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
    """The images below a folder as this extractor wants them; unreadable ones are None."""
    return ImageFolder(
        root,
        pipeline=[LoadPILImage(), ResizeAndCenterCrop(extractor.img_size, extractor.crop_ratio),
                  PackImageInputs()],
        with_label=with_label,
        test_mode=True)


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
        kinds: any of 'cls' and 'pooled'. Patch features: see :func:`stream_features`.
        batch_size: images at a time.
        workers: processes that decode; 0 decodes in this one.
        name: for the progress on the terminal; None shows none.

    Raises:
        MilanError: if no image can be decoded.
    """
    n = len(dataset)
    rows = {kind: torch.empty(n, extractor.dim) for kind in kinds}
    infos, count = [], 0
    unreadable: list[str] = []
    for index, out in stream_features(
            extractor, dataset, batch_size, workers, name, unreadable.append):
        for kind, store in rows.items():
            store[count:count + len(index)] = getattr(out, kind).float().cpu()
        infos += [dataset.get_data_info(i) for i in index]
        count += len(index)
    return FeatureTable(
        features={kind: store[:count] for kind, store in rows.items()},
        labels=torch.tensor([info.get('gt_label', -1) for info in infos], dtype=torch.long),
        paths=[info['img_path'] for info in infos],
        classes=tuple(dataset.metainfo.get('classes', ())),
        unreadable=unreadable)


def stream_features(extractor: Extractor,
                    dataset: ImageFolder,
                    batch_size: int,
                    workers: int,
                    name: str | None,
                    on_unreadable: Callable[[str], None]) -> Iterator[tuple[list[int], Features]]:
    """Batches of (indices, features) in the folder's order; unreadable images are left out.

    They are counted and named in the log at the end, and each is told to ``on_unreadable``.
    """
    loader = DataLoader(
        _Indexed(dataset),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=extractor.pixel_mean.is_cuda,
        # Without one of its own, a loader draws its workers' seed from the global generator.
        generator=torch.Generator().manual_seed(0))
    unreadable: list[str] = []
    done = 0
    progress = Progress(name, len(dataset))
    for index, pixels, failed in loader:
        unreadable += [dataset.get_data_info(i)['img_path'] for i in failed]
        done += len(index) + len(failed)
        if index:
            with torch.no_grad():
                yield index, extractor(extractor.normalise(pixels))
        progress.update(len(index) + len(failed))
    progress.close()
    for path in unreadable:
        on_unreadable(path)
    if unreadable:
        print_log(f'{len(unreadable)} of {done} images cannot be decoded and are left out: '
                  f'{some_of(unreadable)}', logger='current', level=30)
    if len(unreadable) == done:
        raise MilanError(f'none of the {done} images in {dataset.data_root} can be decoded')


class _Indexed(Dataset):
    """Samples as (index, pixels or None): all that passes between the workers and here."""

    def __init__(self, dataset: ImageFolder) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[int, Tensor | None]:
        sample = self.dataset[index]
        return index, None if sample is None else sample['inputs']


def _collate(samples: list[tuple[int, Tensor | None]]) -> tuple[list[int], Tensor, list[int]]:
    good = [(i, pixels) for i, pixels in samples if pixels is not None]
    return ([i for i, _ in good], torch.stack([p for _, p in good]) if good else torch.empty(0),
            [i for i, pixels in samples if pixels is None])


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
