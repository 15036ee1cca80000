# SPDX-License-Identifier: Apache-2.0
"""From a folder to batches of pixels, for all that looks at images without training on them."""
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from mmengine.logging import print_log
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import MilanError
from ..progress import Progress
from ..wording import some_of
from .image_folder import ImageFolder
from .transforms import LoadPILImage, PackImageInputs, ResizeAndCenterCrop


class Images(Protocol):
    """What can be streamed; an :class:`ImageFolder` is one."""

    def __len__(self) -> int:
        """How many images there are."""

    def path(self, index: int) -> str:
        """Of an image."""

    def pixels(self, index: int) -> Tensor | None:
        """Of an image, uint8 (..., 3, H, W); None if it cannot be decoded."""


def central_crops(root: str | Path, size: tuple[int, int], crop_ratio: float = 1,
                  with_label: bool = False) -> ImageFolder:
    """The images below a folder, each as its central crop; see :class:`ResizeAndCenterCrop`."""
    return ImageFolder(
        root, pipeline=[LoadPILImage(), ResizeAndCenterCrop(size, crop_ratio), PackImageInputs()],
        with_label=with_label, test_mode=True)


class ImageStream:
    """Batches of (numbers, pixels (B, ..., 3, H, W) uint8, a list where sizes differ).

    An image that cannot be decoded is left out, and batches are filled up with the next ones: all
    but the last are whole. At the end these images are counted and named in the log. Draws nothing
    from the global random generators.

    Args:
        images: to be read.
        batch_size: images at a time.
        workers: processes that decode; 0 decodes in this one.
        order: numbers of the images, in the order wanted; None for all.
        total: how many numbers ``order`` gives, where it has no length.
        title: for the progress; None shows none.
        log: receives lines of progress; by default they go to stderr.

    Attributes:
        unreadable: paths of the images left out so far.

    Raises:
        MilanError: at the end, if no image could be decoded.
    """

    def __init__(self, images: Images, batch_size: int, workers: int = 0,
                 order: Iterable[int] | None = None, total: int | None = None,
                 title: str | None = None, log: Callable[[str], None] | None = None) -> None:
        if order is None:
            order = range(len(images))
        if total is None:
            total = len(order)  # type: ignore[arg-type]
        self.images, self.batch_size, self.unreadable = images, batch_size, list[str]()
        self.progress = Progress(title, total, log)
        self.loader = DataLoader(
            _Numbered(images), batch_size, sampler=order, num_workers=workers, collate_fn=_collate,
            pin_memory=torch.cuda.is_available(),
            # Without one of its own, a loader draws its workers' seed from the global generator.
            generator=torch.Generator().manual_seed(0))

    def __iter__(self) -> Iterator[tuple[list[int], Any]]:
        seen, numbers, pixels = 0, list[int](), list[Tensor]()  # the latter are not given out yet
        for found, batch, failed in self.loader:
            seen += len(found) + len(failed)
            self.unreadable += map(self.images.path, failed)
            if len(found) == self.batch_size and not numbers:
                yield found, batch  # as it came: no copy
            else:
                numbers, pixels = numbers + found, pixels + list(batch)
            if len(numbers) >= self.batch_size:
                yield numbers[:self.batch_size], _stacked(pixels[:self.batch_size])
                numbers, pixels = numbers[self.batch_size:], pixels[self.batch_size:]
            self.progress.update(len(found) + len(failed))
        if numbers:
            yield numbers, _stacked(pixels)
        self.progress.close()
        self._tell(seen)

    def _tell(self, seen: int) -> None:
        if seen and len(self.unreadable) == seen:
            raise MilanError(f'none of the {seen} images can be decoded, such as '
                             f'{self.unreadable[0]}')
        if self.unreadable:
            print_log(f'{len(self.unreadable)} of {seen} images cannot be decoded and are left '
                      f'out: {some_of(self.unreadable)}', logger='current', level=30)


class _Numbered(Dataset):
    """(number, pixels or None): all that passes between the workers and here."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[int, Tensor | None]:
        return number, self.images.pixels(number)


def _collate(samples: Sequence[tuple[int, Tensor | None]]
             ) -> tuple[list[int], Tensor | list[Tensor], list[int]]:
    good = [(number, pixels) for number, pixels in samples if pixels is not None]
    return ([number for number, _ in good], _stacked([pixels for _, pixels in good]),
            [number for number, pixels in samples if pixels is None])


def _stacked(pixels: list[Tensor]) -> Tensor | list[Tensor]:
    return torch.stack(pixels) if len({p.shape for p in pixels}) == 1 else pixels
