# SPDX-License-Identifier: Apache-2.0
"""From views to rows of small images with captions, which sheet and page arrange."""
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ...drawing import panels
from ...drawing.panels import Tile
from ...inference.images import load_pixels
from ...structures import pair
from .neighbours import Neighbour
from .views import Attempt, Views

_SIDE = 200  # pixels that a panel's longer side has about, where an image is smaller


class TileRow(NamedTuple):
    """Panels side by side, and what they have in common."""
    title: str
    tiles: list[Tile]


class Colours(NamedTuple):
    """(B, N, 3) coordinates of patch features that stand for red, green and blue.

    Attributes:
        teacher: None without one.
        predicted: one for each attempt, in the teacher's basis; empty if pixels or
            nothing were predicted.
        student: the encoder's; in a basis of its own, turned towards the teacher's.
    """
    teacher: Tensor | None
    predicted: list[Tensor]
    student: Tensor


def colours_of(views: Views) -> Colours:
    """Colours of teacher, predictions and encoder that can be compared.

    The teacher's three principal components over all images are the basis; predictions live in
    the same space and share it. The encoder's space is another one: its own three components are
    turned (see :func:`turn_colours`) so that its patches look as much like the teacher's as a
    rotation allows.
    """
    student = views.student.flatten(0, 1)
    own = panels.fit_colours(student)
    if views.teacher is None:
        return Colours(None, [], own.scores(views.student))
    basis = panels.fit_colours(views.teacher.flatten(0, 1))
    teacher = basis.scores(views.teacher)
    own = panels.turn_colours(own, student, teacher.flatten(0, 1))
    in_colours = views.trained.painted is None and views.trained.predicted is not None
    predicted = [basis.scores(one.predicted) for one in views.attempts] if in_colours else []
    return Colours(teacher, predicted, own.scores(views.student))


def highest_error(views: Views) -> float:
    """What gets the brightest colour in every error map: the 98th percentile of all of them."""
    if views.trained.error is None:
        return 0.0
    return float(np.quantile(np.stack([one.error.numpy() for one in views.attempts]), 0.98))


def scale_of(views: Views) -> int:
    """By how much small images are enlarged."""
    return max(1, round(_SIDE / max(views.pixels.shape[-2:])))


class Painter:
    """Makes the rows of each image.

    Args:
        views: views of all images.
        measure: what ``Attempt.measure`` is called: 'cos' or 'mse', or '' without one.
        names: names of the images.
    """

    def __init__(self, views: Views, measure: str, names: Sequence[str]) -> None:
        self.views, self.measure, self.names = views, measure, list(names)
        self.colours = colours_of(views)
        self.highest = highest_error(views)
        self.scale = scale_of(views)
        self.size = pair(side * self.scale for side in views.pixels.shape[-2:])

    def rows(self, i: int) -> list[TileRow]:
        """The rows of image i, without its neighbours."""
        trained = f'{percent(self.views.trained.ratio)} masked'
        attempts = [(f'{percent(one.ratio)} masked', one) for one in self.views.attempts]
        rows = [
            TileRow(f'What it is given, and masks as they are drawn in training ({trained})',
                    [self._image(i), *self._importance(i), *self._masks(i)]),
            TileRow('Attention and features of the whole image', self._features(i)),
            TileRow('More and more masked: what the encoder sees',
                    [self._mask(i, one.visible[i], caption) for caption, one in attempts]),
        ]
        if self.views.trained.error is None:
            return rows
        rows[1] = TileRow(f'{rows[1].title}, and the prediction', [
            *rows[1].tiles, self._predicted(i, self.views.trained, f'predicted, {trained}'),
            self._error(i, self.views.trained, f'error, {trained}')])
        return [
            *rows,
            TileRow(
                f'… the error by patch, and the mean {self.measure} on seen and masked patches',
                [self._error(i, one, '{} seen, {} masked'.format(*map(number, seen_masked(one, i))))
                 for one in self.views.attempts]),
            TileRow('… and what is predicted',
                    [self._predicted(i, one, caption) for caption, one in attempts]),
        ]

    def neighbours(self, title: str, found: Sequence[Neighbour], root: Path) -> TileRow:
        """A row of the images found for one."""
        tiles = []
        for one in found:
            pixels = load_pixels([one.path], pair(self.views.pixels.shape[-2:]))[0]
            name = one.path.relative_to(root).as_posix()
            tiles.append(Tile(panels.as_image(pixels, self.scale), f'{one.cosine:.2f} {name}',
                              f'{name}, cosine {one.cosine:.2f}', True))
        return TileRow(title, tiles)

    def _image(self, i: int) -> Tile:
        return Tile(panels.as_image(self.views.pixels[i], self.scale), 'image', self.names[i],
                    True)

    def _importance(self, i: int) -> list[Tile]:
        if self.views.importance is None:
            return []
        return [self._heat(i, self.views.importance[i], "teacher's importance")]

    def _heat(self, i: int, values: Tensor, name: str) -> Tile:
        grid = self.views.grid
        row, column = divmod(int(values.argmax()), grid[1])
        return Tile(
            panels.importance_panel(self.views.pixels[i], values, grid, self.scale), name,
            f'{name} over "{self.names[i]}", the most in row {row + 1}, column {column + 1}', True)

    def _masks(self, i: int) -> list[Tile]:
        return [self._mask(i, visible, f'draw {draw + 1}')
                for draw, visible in enumerate(self.views.masks[i])]

    def _mask(self, i: int, visible: Tensor, caption: str) -> Tile:
        grid = self.views.grid
        return Tile(
            panels.mask_panel(self.views.pixels[i], visible, grid, self.scale), caption,
            f'"{self.names[i]}" as the encoder sees it ({caption}): {len(visible)} of '
            f'{grid[0] * grid[1]} patches', True)

    def _features(self, i: int) -> list[Tile]:
        rollout = self.views.rollout[i]
        # Every patch gets some of it, and the images differ in how much: from least to most.
        shown = [self._heat(i, rollout - rollout.min(), 'attention rollout')]
        for name, scores in (("teacher's features", self.colours.teacher),
                             ("encoder's features", self.colours.student)):
            if scores is not None:
                shown.append(self._coloured(i, scores[i], name))
        return shown

    def _coloured(self, i: int, scores: Tensor, name: str) -> Tile:
        return Tile(panels.feature_panel(scores, self.views.grid, self.size), name,
                    f'{name} of the patches of "{self.names[i]}" as colours', False)

    def _predicted(self, i: int, one: Attempt, caption: str) -> Tile:
        if one.painted is not None:
            return Tile(panels.as_image(one.painted[i], self.scale), caption,
                        f'"{self.names[i]}", masked patches as predicted ({caption})', True)
        at = [other.ratio for other in self.views.attempts].index(one.ratio)
        return self._coloured(i, self.colours.predicted[at][i], caption)

    def _error(self, i: int, one: Attempt, caption: str) -> Tile:
        row, column = divmod(int(one.error[i].argmax()), self.views.grid[1])
        return Tile(
            panels.error_panel(one.error[i], self.views.grid, self.size, self.highest,
                               one.visible[i]), caption,
            f'error of the prediction with {percent(one.ratio)} of "{self.names[i]}" masked, the '
            f'largest in row {row + 1}, column {column + 1}', False)


def seen_masked(one: Attempt, i: int | None = None) -> tuple[float, float]:
    """Mean measure of the patches seen and of the others, of image i or of all."""
    seen = np.zeros(one.measure.shape, bool)
    np.put_along_axis(seen, one.visible.numpy(), True, axis=1)
    measure = one.measure.numpy()
    if i is not None:
        seen, measure = seen[i], measure[i]
    return float(measure[seen].mean()), float(measure[~seen].mean())


def facts_of(views: Views, i: int, measure: str) -> dict[str, float]:
    """Numbers that belong to an image, by name."""
    facts: dict[str, float] = {}
    if views.trained.measure is not None:
        seen, masked = seen_masked(views.trained, i)
        facts = {f'{measure} on seen patches': seen, f'{measure} on masked patches': masked}
    if views.importance is not None:
        facts['importance seen'] = float(views.importance[i][views.trained.visible[i]].sum())
        facts['rank correlation of rollout and importance'] = rank_correlation(
            views.rollout[i], views.importance[i])
    return facts


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's, of two (N,) without ties."""
    ranks = [np.argsort(np.argsort(values.numpy())) for values in (first, second)]
    return float(np.corrcoef(ranks)[0, 1]) if len(ranks[0]) > 1 else 0.0


def number(value: float) -> str:
    """Two decimals; never -0.00."""
    return f'{round(value, 2) + 0.0:.2f}'


def percent(share: float) -> str:
    """0.75 as '75 %'."""
    return f'{100 * share:g}\u00a0%'  # no line break between the two
