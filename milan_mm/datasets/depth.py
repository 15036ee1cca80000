# SPDX-License-Identifier: Apache-2.0
"""Values of more than 8 bits to 8, or a refusal where they would come out black or white."""
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..errors import MilanError, UnreadableImageError

WIDE_MODES = ('I;16', 'I;16L', 'I;16B', 'I;16N', 'I', 'F')
# The largest value of an image must reach this share of its range. Below it, 12 bits in a file of
# 16 among them, at most the lowest 16 of 256 levels are left: nearly black.
_FAINT = 1 / 16


def to_8_bits(pixels: np.ndarray, mode: str,
              value_range: tuple[float, float] | None = None) -> np.ndarray:
    """Whole or float numbers to uint8.

    Args:
        pixels: of one channel.
        mode: Pillow's; 'F' are floats, the others whole numbers.
        value_range: what becomes 0 and 255, the rest being clipped; None for 0 to 65535 of whole
            numbers, and for floats 0 to 1 if none is larger, else 0 to 255.

    Raises:
        UnreadableImageError: if values are not finite, or without a ``value_range`` negative, above
            their range or all of them near its lower end.
    """
    kind = 'float' if mode == 'F' else 'integer' if mode == 'I' else '16-bit'
    if not np.isfinite(pixels).all():
        raise UnreadableImageError(f'some of its {kind} values are no finite numbers')
    low, high = float(pixels.min()), float(pixels.max())
    if value_range is None and mode != 'F':
        _check_range(kind, low, high, 65535)
        # Pillow opens 16-bit grey as I;16 or, in older releases, as I.
        return (pixels.astype(np.int64) >> 8).astype(np.uint8)
    if value_range is None:  # the range of a float image is a convention, and these are common
        value_range = (0, 1 if high <= 1 else 255)
        _check_range(kind, low, high, value_range[1])
    start, end = value_range
    scaled = (pixels.astype(np.float64) - start) * (255 / (end - start))
    return scaled.clip(0, 255).astype(np.uint8)


def check_range(value_range: Sequence[float] | None) -> tuple[float, float] | None:
    """A ``value_range`` from a config; raises MilanError if it is none."""
    if value_range is None:
        return None
    if isinstance(value_range, str) or len(value_range) != 2 or value_range[0] == value_range[1]:
        raise MilanError(f'value_range={value_range!r}: expected two different numbers, the values '
                         'that become 0 and 255, such as (0,4095)')
    return value_range[0], value_range[1]


def refuse_lost_bits(image: Image.Image) -> None:
    """For colours of 16 bits, of which Pillow keeps the upper 8: raises if these are near 0."""
    if np.asarray(image.convert('RGB')).max() < 256 * _FAINT:
        raise UnreadableImageError(
            'none of its 16-bit colours reaches 4096 of 65535, and all would come out nearly '
            'black. Convert it to 8 bits')


def _check_range(kind: str, low: float, high: float, end: int) -> None:
    if low >= 0 and (high == 0 or (end + 1 if end > 1 else end) * _FAINT <= high <= end):
        return
    fate = ('black' if low < 0 else 'white' if high > end else 'nearly black')
    raise UnreadableImageError(
        f'its {kind} values run from {low:g} to {high:g}, of a range of 0 to {end}, and would come '
        f'out {fate}. Convert it to 8 bits, or in a config say which values become 0 and 255: '
        'train_dataloader.dataset.pipeline.0.value_range=(LOW,HIGH)')
