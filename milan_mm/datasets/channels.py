# SPDX-License-Identifier: Apache-2.0
"""Images of 1, 2 or N channels, such as medical and multispectral ones, with all their bits."""
import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from torch.nn.functional import interpolate

from ..errors import MilanError, UnreadableImageError
from ..registry import TRANSFORMS
from ..wording import printable
from .depth import check_range
from .keyed_images import KeyedImages

SUFFIXES = ('.npy', '.tif', '.tiff', '.png', '.jpg', '.jpeg', '.webp', '.bmp')


@TRANSFORMS.register_module()
class LoadChannels(BaseTransform):
    """Reads ``img_path`` into ``img``, an array (H, W, C) in the order of the file's channels.

    TIFF with any number of bands or pages, ``.npy`` of shape (H, W), (H, W, C) or (C, H, W), and
    what OpenCV reads, colours as RGB. Values of 8 bits stay as they are; others become float32 in
    0..255 without being rounded, so that 16 bits remain 16.

    Args:
        channels: how many there must be.
        value_range: what becomes 0 and 255, the rest being clipped; None for all that the type of
            whole numbers holds. Fractions need one.

    Raises:
        UnreadableImageError: for a file that cannot be read or has other channels.
    """

    def __init__(self, channels: int, value_range: Sequence[float] | None = None) -> None:
        if channels < 1:
            raise MilanError(f'LoadChannels: channels must be at least 1, got {channels}')
        self.channels, self.value_range = channels, check_range(value_range)

    def transform(self, results: dict) -> dict:
        path = results['img_path']
        content = results.pop('img_bytes', None)
        try:
            pixels = read_channels(path, content)
            if pixels.shape[2] != self.channels:
                raise UnreadableImageError(f'it has {pixels.shape[2]} channels, expected '
                                           f'{self.channels}')
            pixels = self.scaled(pixels)
        except (UnreadableImageError, OSError, ValueError, cv2.error) as error:
            raise UnreadableImageError(f'cannot decode {printable(path)}: {error}') from error
        results['img'] = pixels
        results['ori_shape'] = results['img_shape'] = pixels.shape[:2]
        return results

    def scaled(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, C) float32 in 0..255, of 8 bits too: a batch may hold files of both kinds."""
        if self.value_range is None:
            if pixels.dtype == np.uint8:
                return pixels.astype(np.float32)
            if pixels.dtype.kind not in 'iu':
                raise UnreadableImageError(
                    f'its values are {pixels.dtype}: say which become 0 and 255, '
                    'train_dataloader.dataset.pipeline.0.value_range=(LOW,HIGH)')
            low, high = 0., float(np.iinfo(pixels.dtype).max)
        else:
            low, high = self.value_range
        pixels = (pixels.astype(np.float32) - low) * np.float32(255 / (high - low))
        if not np.isfinite(pixels).all():
            raise UnreadableImageError('some of its values are no finite numbers')
        return pixels.clip(0, 255)


def read_channels(path: str | Path, content: bytes | None = None) -> np.ndarray:
    """(H, W, C) as the file has them.

    Raises:
        UnreadableImageError: if that is not what it holds.
    """
    content = Path(path).read_bytes() if content is None else content
    if content[:6] == b'\x93NUMPY':
        pixels = np.load(io.BytesIO(content), allow_pickle=False)
        if pixels.ndim == 3 and pixels.shape[0] < min(pixels.shape[1:]):
            pixels = pixels.transpose(1, 2, 0)
    elif content[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
        pixels = _tiff(path, content)
    else:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise UnreadableImageError('its content is no image that is read here')
        if pixels.ndim == 3:
            pixels = pixels[..., [2, 1, 0, 3][:pixels.shape[2]]]
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or not pixels.size or pixels.dtype.kind not in 'iuf':
        raise UnreadableImageError(f'it holds {pixels.dtype} of shape {pixels.shape}, expected '
                                   'numbers (H, W, C)')
    return pixels


def resized(pixels: np.ndarray, box: tuple[int, int, int, int],
            size: tuple[int, int]) -> np.ndarray:
    """A part of (H, W, C), bicubic and antialiased, of the same type.

    Args:
        pixels: uint8, or float32 in 0..255.
        box: left, top, right, bottom.
        size: height and width of the result.
    """
    left, top, right, bottom = box
    part = torch.from_numpy(np.ascontiguousarray(pixels[top:bottom, left:right]))
    small = interpolate(part.permute(2, 0, 1)[None], size, mode='bicubic', antialias=True)
    if small.is_floating_point():
        small = small.clamp(0, 255)
    return small[0].permute(1, 2, 0).numpy()


def channel_statistics(images: KeyedImages, load: LoadChannels,
                       most: int = 64) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel in 0..255, of some images spread over all.

    Raises:
        MilanError: if none of them can be read.
    """
    sums, squares = np.zeros(load.channels), np.zeros(load.channels)
    count, last = 0, None
    for index in range(0, len(images), max(1, len(images) // most)):
        try:
            pixels = load(images.get_data_info(index))['img'].reshape(-1, load.channels)
        except UnreadableImageError as error:
            last = error
            continue
        sums += pixels.sum(0, dtype=np.float64)
        squares += (pixels.astype(np.float64)**2).sum(0)
        count += len(pixels)
    if not count:
        raise MilanError(f'none of the images looked at can be used; the last of them: {last}')
    mean = sums / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return mean.tolist(), np.maximum(deviation, 1e-3).tolist()


def _tiff(path: str | Path, content: bytes) -> np.ndarray:
    try:
        import tifffile
    except ImportError as error:
        raise MilanError(f'{printable(path)}: TIFF with any number of channels needs tifffile; pip '
                         "install 'milan_mm[channels]'") from error
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            series = file.series[0]
            pixels, axes = series.asarray(), series.axes
    except Exception as error:  # it raises whatever its decoders do
        raise UnreadableImageError(f'{type(error).__name__}: {error}') from error
    if pixels.ndim == 3 and axes[-1] == 'X':  # bands or pages come first
        pixels = pixels.transpose(1, 2, 0)
    return pixels
