# SPDX-License-Identifier: Apache-2.0
"""The 15 corruptions of ImageNet-C at five severities, on the fly (Hendrycks & Dietterich 2019).

Written from the paper's description (arXiv 1903.12261, Sec. 3 and appendix) with numpy, OpenCV and
Pillow, which are here already. Not bit-identical to the published images: figures on them are
comparable with each other, not with published mCE. Strengths are those of the benchmark where they
are single numbers (noise, contrast, brightness, quality); elsewhere they were set so that the mean
change of an image of 224 px is near that of public code of the benchmark. Three departures: frost
is a drawn texture, for the paper overlays photographs; elastic_transform is local at all
severities; and lengths in pixels (blurs, flakes, displacements), which the paper gives for 224 px,
grow with the shorter side of the image. Noise, blocks of ``pixelate`` (a share of the side) and
JPEG quality do not depend on the size.

Why not imagecorruptions, which onedl-mmdetection requires (as imagecorruptions-imaug 1.1.5):
upstream's lineage does not have it; its ``impulse_noise`` and ``glass_blur`` draw from generators
of scikit-image and of numba's compiled code, which seeding numpy's does not reach, so that two
calls differ; its lengths are for one size; and it asks for numba, llvmlite and scikit-image
(230 MB) and for the opencv-python that needs libGL.
"""
from collections.abc import Callable

import numpy as np

from ...errors import MilanError
from . import digital, noise_and_blur, weather

GROUPS: dict[str, tuple[str, ...]] = {
    'noise': ('gaussian_noise', 'shot_noise', 'impulse_noise'),
    'blur': ('defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur'),
    'weather': ('snow', 'frost', 'fog', 'brightness'),
    'digital': ('contrast', 'elastic_transform', 'pixelate', 'jpeg_compression'),
}
CORRUPTIONS: tuple[str, ...] = tuple(name for names in GROUPS.values() for name in names)
SEVERITIES = (1, 2, 3, 4, 5)

_IN = {'noise': noise_and_blur, 'blur': noise_and_blur, 'weather': weather, 'digital': digital}
_FUNCTIONS: dict[str, Callable] = {
    name: getattr(_IN[group], name) for group, names in GROUPS.items() for name in names}


def corrupt(pixels: np.ndarray, name: str, severity: int, key: int) -> np.ndarray:
    """One corruption of one image; equal arguments give equal pixels.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        name: one of :data:`CORRUPTIONS`.
        severity: 1 to 5.
        key: all that is drawn at random follows from it, see :func:`milan_mm.keyed_random`.

    Returns:
        (H, W, 3) uint8.

    Raises:
        MilanError: if there is no such corruption or severity, or the pixels are not of that kind.
    """
    if name not in _FUNCTIONS:
        raise MilanError(f'no corruption is named {name!r}; there are {", ".join(CORRUPTIONS)}')
    if severity not in SEVERITIES:
        raise MilanError(f'severities are 1 to 5, got {severity!r}')
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise MilanError(f'expected pixels (H, W, 3) in uint8, got {pixels.dtype} {pixels.shape}')
    # The shorter side: an image of 224 x 400 is not blurred more than one of 224 x 224.
    scale = min(pixels.shape[:2]) / 224
    image = pixels.astype(np.float32) / 255
    out = _FUNCTIONS[name](image, severity - 1, scale, np.random.default_rng(key))
    return (out.clip(0, 1) * 255 + 0.5).astype(np.uint8)
