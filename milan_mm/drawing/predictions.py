# SPDX-License-Identifier: Apache-2.0
"""Predictions drawn on images, with Pillow alone; small images are enlarged to be readable."""
import colorsys
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from .lettering import fitted, font_of

Colour = tuple[int, int, int]
UNTINTED = 'background'  # stays as it is, so that the rest stands out

_LEAST_SIDE = 448  # pixels of the longer side of a drawing
_READABLE = 900  # from here on, text grows with the image
_PANEL = 300  # width of bars and legends, in units of the text
_PAPER, _INK, _FAINT = (255, 255, 255), (30, 30, 30), (225, 228, 232)
_BAR = (52, 112, 186)


class Instance(NamedTuple):
    """One detected object.

    Attributes:
        box: left, top, right, bottom in pixels of the image.
        name: of its class.
        score: in 0..1, or None for the truth.
        colour: of its class.
        mask: (H, W) bool, or None where the detector gives no masks.
    """
    box: tuple[float, float, float, float]
    name: str
    score: float | None
    colour: Colour
    mask: np.ndarray | None = None


def class_colours(number: int) -> tuple[Colour, ...]:
    """So many colours that neighbours in the list are far apart."""
    colours = []
    for i in range(number):
        saturation, value = (0.85, 0.6)[i // 7 % 2], (0.9, 0.7)[i // 14 % 2]
        red, green, blue = colorsys.hsv_to_rgb(i * 0.618034 % 1, saturation, value)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return tuple(colours)


def draw_classification(image: Image.Image,
                        rows: Sequence[tuple[str, float]]) -> Image.Image:
    """The image, and beside it a bar for each class.

    Args:
        image: RGB.
        rows: names and scores in 0..1, best first.
    """
    image, _ = _enlarged(image)
    unit = _unit(image)
    canvas, draw, left, right = _with_panel(image, 20 + 46 * len(rows))
    font = font_of(14 * unit)
    for i, (name, score) in enumerate(rows):
        top = (14 + 46 * i) * unit
        percent = f'{100 * score:.1f} %'
        draw.text((right, top), percent, _INK, font, anchor='ra')
        room = right - left - font.getlength(percent) - 10 * unit
        draw.text((left, top), fitted(name, font, room), _INK, font)
        bar = (left, top + 21 * unit, right, top + 31 * unit)
        draw.rectangle(bar, _FAINT)
        draw.rectangle((*bar[:2], left + (right - left) * score, bar[3]), _BAR)
    return canvas


def draw_detection(image: Image.Image, instances: Sequence[Instance]) -> Image.Image:
    """The image with masks, boxes, names and scores, the surest on top.

    Args:
        image: RGB.
        instances: in any order.
    """
    canvas, scale = _enlarged(image)
    instances = sorted(instances, key=lambda instance: instance.score or 0)
    for instance in instances:
        if instance.mask is not None:
            mask = Image.fromarray(instance.mask.astype(np.uint8) * 255).resize(canvas.size, 0)
            tint = Image.new('RGB', canvas.size, instance.colour)
            canvas.paste(tint, mask=mask.point(lambda value: value * 45 // 100))
            inner = mask.filter(ImageFilter.MinFilter(5))
            canvas.paste(tint, mask=ImageChops.subtract(mask, inner))
    draw = ImageDraw.Draw(canvas)
    font = font_of(max(13, canvas.width // 55))
    for instance in instances:
        box = [scale * side for side in instance.box]
        draw.rectangle(box, outline=instance.colour, width=max(2, canvas.width // 350))
    for instance in instances:
        text = instance.name + ('' if instance.score is None else f' {instance.score:.2f}')
        _label(draw, canvas.size, [scale * side for side in instance.box[:2]], text,
               instance.colour, font)
    return canvas


def tint_classes(image: Image.Image, labels: np.ndarray,
                 rows: Sequence[tuple[int, str, float, Colour]]) -> Image.Image:
    """The image under its classes' colours; arguments as of :func:`draw_segmentation`."""
    image, factor = _enlarged(image)
    pixels = np.array(image)
    labels = labels.repeat(factor, 0).repeat(factor, 1)
    for label, name, _, colour in rows:
        if name == UNTINTED:
            continue
        where = labels == label
        pixels[where] = (0.45 * pixels[where] + 0.55 * np.array(colour)).astype(np.uint8)
    return Image.fromarray(pixels)


def draw_segmentation(image: Image.Image,
                      labels: np.ndarray,
                      rows: Sequence[tuple[int, str, float, Colour]]) -> Image.Image:
    """The image under its classes' colours, and a legend.

    Args:
        image: RGB.
        labels: (H, W) class of each pixel.
        rows: label, name, share of the pixels in 0..1 and colour of each class that occurs, the
            largest first.
    """
    tinted = tint_classes(image, labels, rows)
    unit = _unit(tinted)
    font = font_of(14 * unit)
    room = max((tinted.height // unit - 20) // 26, 8)
    shown = rows if len(rows) <= room else rows[:room - 1]
    canvas, draw, left, right = _with_panel(tinted, 20 + 26 * min(len(rows), room))
    for i, (_, name, share, colour) in enumerate(shown):
        top = (14 + 26 * i) * unit
        percent = f'{100 * share:.1f} %'
        draw.rectangle((left, top, left + 18 * unit, top + 18 * unit), colour, outline=_INK)
        draw.text((right, top), percent, _INK, font, anchor='ra')
        width = right - left - 38 * unit - font.getlength(percent)
        draw.text((left + 28 * unit, top), fitted(name, font, width), _INK, font)
    if len(shown) < len(rows):
        draw.text((left, (14 + 26 * len(shown)) * unit), f'and {len(rows) - len(shown)} more', _INK,
                  font)
    return canvas


def image_alone(drawing: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A drawing without its bars or legend.

    Args:
        drawing: of :func:`draw_classification` or another.
        size: width and height of the image that was drawn on.
    """
    factor = _factor(size)
    return drawing.crop((0, 0, factor * size[0], factor * size[1]))


def _factor(size: tuple[int, int]) -> int:
    return max(1, math.ceil(_LEAST_SIDE / max(size)))


def _enlarged(image: Image.Image) -> tuple[Image.Image, int]:
    """A copy, by a whole factor larger where it is small, and the factor."""
    factor = _factor(image.size)
    if factor == 1:
        return image.copy(), 1
    return image.resize((factor * image.width, factor * image.height),
                        Image.Resampling.BICUBIC), factor


def _unit(image: Image.Image) -> int:
    """By how much text and panels are larger on a large image."""
    return max(1, round(max(image.size) / _READABLE))


def _with_panel(image: Image.Image,
                least: int) -> tuple[Image.Image, ImageDraw.ImageDraw, int, int]:
    """The image on paper with room for text at its right, and that room's left and right."""
    unit = _unit(image)
    canvas = Image.new(
        'RGB', (image.width + _PANEL * unit, max(image.height, least * unit)), _PAPER)
    canvas.paste(image)
    return (canvas, ImageDraw.Draw(canvas), image.width + 16 * unit,
            canvas.width - 16 * unit)


def _label(draw: ImageDraw.ImageDraw, size: tuple[int, int], corner: Sequence[float], text: str,
           colour: Colour, font: ImageFont.FreeTypeFont) -> None:
    """Text on its colour, above a box's corner or inside it, never outside the image."""
    text = fitted(text, font, size[0] - 6)
    width, height = font.getlength(text) + 6, font.size + 5
    left = min(max(corner[0], 0), size[0] - width)
    top = corner[1] - height if corner[1] >= height else max(corner[1], 0)
    top = min(top, size[1] - height)
    draw.rectangle((left, top, left + width, top + height), colour)
    light = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]
    draw.text((left + 3, top + 1), text, _INK if light > 140 else _PAPER, font)
