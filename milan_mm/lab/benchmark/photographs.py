# SPDX-License-Identifier: Apache-2.0
"""Images that a JPEG decoder finds as hard as photographs."""
import numpy as np
from PIL import Image, ImageDraw


def photograph(width: int, height: int, rng: np.random.Generator, shapes: int = 40) -> Image.Image:
    """Noise with the spectrum of photographs, and discs with sharp edges on it.

    Amplitudes fall with the frequency as in natural scenes, in colour faster than in brightness.

    Args:
        width, height: in pixels.
        rng: what is drawn from.
        shapes: number of discs.
    """
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height,
                         np.fft.rfftfreq(width) * width)
    frequency[0, 0] = 1

    def noise(power: float) -> np.ndarray:
        phases = np.exp(2j * np.pi * rng.random(frequency.shape))
        values = np.fft.irfft2(phases / frequency**power, (height, width))
        return (values - values.mean()) / values.std()

    brightness = 120 + 45 * noise(1.2)
    planes = [np.clip(brightness + 20 * noise(1.4), 0, 255) for _ in range(3)]
    image = Image.fromarray(np.stack(planes, -1).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(shapes):
        left, top = int(rng.integers(0, width)), int(rng.integers(0, height))
        side = int(rng.integers(4, max(5, width // 8)))
        draw.ellipse((left, top, left + side, top + side), tuple(rng.integers(0, 255, 3).tolist()))
    return image
