#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Draws images of another kind than the drawings: shapes on noise, classes by outline and filling.

    python demo/make_shape_images.py OUT --count 1800

OUT/train/<class>/<n>.png and OUT/val/<class>/<n>.png, a caption beside each as <n>.txt. Colour,
size, place, angle and background are drawn at random and belong to no class.
"""
import argparse
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

OUTLINES = ('circle', 'square', 'triangle', 'star', 'cross', 'ring')
FILLINGS = ('plain', 'striped')
SIDE, SCALE = 64, 4  # drawn larger and made small, for smooth edges


def outline(name: str, radius: float, angle: float) -> list[tuple[float, float]]:
    """Corners of a shape around (0, 0)."""
    def at(turn: float, length: float = 1.) -> tuple[float, float]:
        return (radius * length * math.cos(angle + turn), radius * length * math.sin(angle + turn))
    if name in ('circle', 'ring'):
        return [at(2 * math.pi * i / 60) for i in range(60)]
    if name == 'star':
        return [at(math.pi * i / 5, 1 if i % 2 == 0 else .42) for i in range(10)]
    if name == 'cross':
        inner, tip = .42, math.atan2(.3, 1)
        return [at(math.pi / 2 * i + turn, length) for i in range(4)
                for turn, length in ((-tip, 1.), (tip, 1.), (math.pi / 4, inner))]
    corners = 3 if name == 'triangle' else 4
    return [at(2 * math.pi * i / corners) for i in range(corners)]


def draw(shape: str, filling: str, rng: np.random.Generator) -> Image.Image:
    """One image."""
    side = SIDE * SCALE
    noise = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    tint = Image.new('RGB', (side, side), tuple(int(v) for v in rng.integers(0, 256, 3)))
    ground = Image.blend(noise.resize((side, side), Image.Resampling.BICUBIC), tint, .6)
    radius = rng.uniform(.18, .42) * side
    x, y = rng.uniform(radius * .8, side - radius * .8, 2)
    angle = rng.uniform(0, 2 * math.pi)
    mask = Image.new('L', (side, side))
    pen = ImageDraw.Draw(mask)
    pen.polygon([(x + a, y + b) for a, b in outline(shape, radius, angle)], fill=255)
    if shape == 'ring':
        hole = outline(shape, radius * .55, angle)
        pen.polygon([(x + a, y + b) for a, b in hole], fill=0)
    first, second = (Image.new('RGB', (side, side), tuple(int(v) for v in colour))
                     for colour in rng.integers(0, 256, (2, 3)))
    body = first
    if filling == 'striped':
        grid = np.mgrid[:side, :side]
        turn, width = rng.uniform(0, math.pi), rng.uniform(.05, .09) * side
        wave = (grid[0] * math.sin(turn) + grid[1] * math.cos(turn)) // width % 2
        body = Image.composite(first, second, Image.fromarray((255 * wave).astype(np.uint8)))
    ground.paste(body, mask=mask)
    return ground.resize((SIDE, SIDE), Image.Resampling.LANCZOS).filter(
        ImageFilter.GaussianBlur(rng.uniform(0, .6)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', metavar='OUT', type=Path, help='Folder to write to.')
    parser.add_argument('--count', type=int, default=1800, metavar='N', help='Number of images '
                        '(default: %(default)s); a quarter of them is val.')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='Seed of what is drawn.')
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    classes = [(shape, filling) for shape in OUTLINES for filling in FILLINGS]
    for number in range(args.count):
        shape, filling = classes[number % len(classes)]
        part = 'val' if number // len(classes) % 4 == 3 else 'train'
        path = args.out / part / f'{filling} {shape}' / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(shape, filling, rng).save(path)
        path.with_suffix('.txt').write_text(f'a {filling} {shape}\n')
    print(f'{args.out}: {args.count} images in {len(classes)} classes')


if __name__ == '__main__':
    main()
