# SPDX-License-Identifier: Apache-2.0
"""Questions about an image that was seen, answered with small images and numbers."""
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ...drawing import panels
from ...drawing.panels import Tile
from ...errors import MilanError
from ...inference.images import load_pixels
from ...inference.pretraining import mask_keys
from ...models import SemanticMaskGenerator
from ...structures import MaskIds, pair
from ..diagnosis.subject import Subject
from ..visualization.tiles import TileRow, number, seen_masked
from ..visualization.views import Attempt, attempt
from ..zero_shot.prompts import TextTower, embed_classes
from .gallery import Gallery, image_vectors
from .seen import Seen, look

_KEPT = 32  # images whose features are kept
_NEIGHBOURS = 6
_SIDE = 224  # pixels that a panel's longer side has at least, about


class Asked(NamedTuple):
    """An image that was shown, as each subject saw it; and its file, if it is of the folder."""
    name: str
    seen: list[Seen]
    path: Path | None


class Answer(NamedTuple):
    """What the page shows: rows of small images, and numbers by name."""
    rows: list[TileRow]
    facts: list[tuple[str, str]]


class _Made(NamedTuple):
    """What one subject made of a mask; ``measure`` is what the log calls it, or ''."""
    seen: Seen
    who: str
    measure: str
    attempt: Attempt


class Explorer:
    """Sees images and answers.

    Args:
        subjects: one model, or two that are compared.
        names: what they are called.
        gallery: images among which the nearest are looked for.
        texts: the text tower of the first one's teacher.
    """

    def __init__(self, subjects: Sequence[Subject], names: Sequence[str],
                 gallery: Gallery | None = None, texts: TextTower | None = None) -> None:
        self.subjects, self.names = list(subjects), list(names)
        self.gallery, self.texts = gallery, texts
        self._asked: OrderedDict[str, Asked] = OrderedDict()

    @property
    def masks_by_importance(self) -> bool:
        """Whether masks are drawn by importance, at a temperature."""
        first = self.subjects[0]
        if first.model is not None:
            return first.model.measures_importance
        return first.reference is not None

    @property
    def draws_masks(self) -> bool:
        """Whether there is anything that masks are drawn by."""
        return self.subjects[0].model is not None or self.masks_by_importance

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the first one's patches."""
        return pair(self.subjects[0].backbone.grid_size)

    @property
    def usual(self) -> tuple[float, float]:
        """Mask ratio and temperature of the training."""
        model = self.subjects[0].model
        generator = model and model.mask_generator
        return getattr(generator, 'mask_ratio', 0.75), getattr(generator, 'temperature', 1.0)

    def show(self, image: Image.Image, name: str, path: Path | None = None) -> str:
        """Encodes an image, unless it is known; gives the key that questions name it by."""
        content = f'{image.mode} {image.size}'.encode() + image.tobytes()
        key = hashlib.sha256(content).hexdigest()[:16]
        if key not in self._asked:
            self._asked[key] = Asked(name, [look(one, image) for one in self.subjects], path)
            while len(self._asked) > _KEPT:
                self._asked.popitem(last=False)
        self._asked.move_to_end(key)
        return key

    def image(self, key: str) -> Answer:
        """What all of the image says: importance, rollout, features as colours."""
        asked = self._known(key)
        first = asked.seen[0]
        given = [Tile(self._photograph(first), 'image', asked.name, True)]
        if first.tokens.importance is not None:
            given.append(self._heat(first, first.tokens.importance[0], "teacher's importance",
                                    f'"{asked.name}"'))
        for who, seen in zip(self.names, asked.seen):
            given.append(self._heat(seen, seen.rollout - seen.rollout.min(),
                                    f'attention rollout{self._of(who)}', f'"{asked.name}"'))
        return Answer([TileRow('What is looked at', given),
                       TileRow('Features as colours', self._colours(asked))], [])

    @torch.no_grad()
    def masks(self, key: str, ratio: float, temperature: float, draw: int) -> Answer:
        """A mask, and what the decoder makes of what it leaves.

        Args:
            key: of the image.
            ratio: share of patches that are masked.
            temperature: of the draw by importance.
            draw: another one draws another mask.

        Raises:
            MilanError: if a number makes no mask.
        """
        asked = self._known(key)
        made = self._attempts(asked, ratio, temperature, draw)
        highest = {measure: max(one.error.quantile(0.98).item() for _, _, kind, one in made
                                if kind == measure) for _, _, measure, _ in made if measure}
        rows, facts = [], []
        for seen, who, measure, one in made:
            rows.append(TileRow(f'Seen and predicted{self._of(who)}', self._attempt_tiles(
                seen, asked.name, one, highest.get(measure, 0.0))))
            if measure:
                known, hidden = seen_masked(one._replace(
                    visible=one.visible.cpu(), measure=one.measure.cpu()), 0)
                facts += [(f'{measure} on seen patches{self._of(who)}', number(known)),
                          (f'{measure} on masked patches{self._of(who)}', number(hidden))]
        importance = asked.seen[0].tokens.importance
        if importance is not None and made:
            seen_share = importance[0][made[0].attempt.visible[0]].sum() / importance[0].sum()
            facts.append(('importance seen', number(seen_share.item())))
        return Answer(rows, facts)

    def patch(self, key: str, row: float, column: float) -> Answer:
        """How alike all patches are to one, to each encoder.

        Args:
            key: of the image.
            row, column: the place of the patch, from 0 to 1 over the image's height and width.
        """
        asked = self._known(key)
        tiles = []
        for who, seen in zip(self.names, asked.seen):
            rows, columns = seen.grid
            at = (min(int(row * rows), rows - 1), min(int(column * columns), columns - 1))
            patches = rows * columns
            said = [(f'encoder{self._of(who)}', seen.tokens.student[0, 1:])]
            if seen is asked.seen[0] and seen.tokens.teacher is not None:
                said.append(('teacher', seen.tokens.teacher[0, -patches:]))
            for name, features in said:
                directions = panels.directions(features)
                cosines = directions @ directions[at[0] * columns + at[1]]
                tiles.append(self._cosines(seen, cosines, name, (
                    f'"{asked.name}", compared with the patch in row {at[0] + 1}, column '
                    f'{at[1] + 1}')))
        return Answer([TileRow('Cosine of the chosen patch with all others', tiles)], [])

    def near(self, key: str) -> Answer:
        """The nearest images of the folder, by each encoder's CLS token."""
        asked = self._known(key)
        if self.gallery is None:
            return Answer([], [])
        rows = []
        for i, (who, seen) in enumerate(zip(self.names, asked.seen)):
            for name, vector in image_vectors(seen.tokens).items():
                if name == 'teacher' and i:
                    continue
                found = self.gallery.nearest(i, name, vector[0], _NEIGHBOURS, asked.path)
                title = 'teacher' if name == 'teacher' else f'encoder{self._of(who)}'
                rows.append(TileRow(f'By the {title}', [
                    Tile(panels.as_image(load_pixels([one.path], (160, 160))[0]),
                         f'{one.cosine:.2f} {self.gallery.name(one.path)}',
                         f'{self.gallery.name(one.path)}, cosine {one.cosine:.2f}', True)
                    for one in found]))
        return Answer(rows, [])

    @torch.no_grad()
    def words(self, key: str, text: str) -> Answer:
        """Where in the image a text is, to the teacher and to the decoder's prediction of it."""
        asked = self._known(key)
        text = text.strip()
        if not text or self.texts is None:
            raise MilanError('expected some words, such as: a photo of a dog')
        seen, model = asked.seen[0], self.subjects[0].model
        patches = seen.tokens.student.shape[1] - 1
        direction = embed_classes(self.texts, [text], [text], ['{}']).directions[0]
        said = [('teacher', seen.tokens.teacher[0])]
        if model is not None and model.predicts and seen.tokens.target is not None and (
                seen.tokens.target.shape[-1] == len(direction)):
            said.append(('decoder, nothing masked', model.predict(seen.inputs)[0]))
        tiles, facts = [], []
        for name, features in said:
            cosines = panels.directions(features).cpu() @ direction
            tiles.append(self._cosines(seen, cosines[-patches:], name,
                                       f'"{asked.name}", compared with the words "{text}"'))
            if len(cosines) > patches:
                facts.append((f'cosine with the whole image, {name}', number(cosines[0].item())))
        return Answer([TileRow(f'“{text}”', tiles)], facts)

    def _known(self, key: str) -> Asked:
        if key not in self._asked:
            raise MilanError('this image is no longer kept; choose it again')
        return self._asked[key]

    def _attempts(self, asked: Asked, ratio: float, temperature: float,
                  draw: int) -> list['_Made']:
        """Each subject on the first one's mask; on its own where its grid is another."""
        masks: MaskIds | None = None
        made = []
        for subject, who, seen in zip(self.subjects, self.names, asked.seen):
            if masks is None or masks.order().shape[1] != seen.grid[0] * seen.grid[1]:
                masks = self._draw(subject, seen, ratio, temperature, draw)
            if masks is None:
                continue
            one = Attempt(ratio, masks.visible)
            if subject.model is not None:
                one = attempt(subject.model, seen.inputs, seen.tokens.target, masks, ratio)
            measure = '' if one.error is None else subject.model.head.loss_module.measure
            made.append(_Made(seen, who, measure, one))
        return made

    def _draw(self, subject: Subject, seen: Seen, ratio: float, temperature: float,
              draw: int) -> MaskIds | None:
        keys = mask_keys(0, [0], draw).to(seen.inputs.device)
        if seen.tokens.importance is not None:
            generator = SemanticMaskGenerator(ratio, temperature)
            return generator(seen.tokens.importance, keys, ratio)
        if subject.model is None:
            return None
        even = seen.tokens.student.new_ones(1, seen.tokens.student.shape[1] - 1)
        return subject.model.mask_generator(even, keys, ratio)

    def _of(self, who: str) -> str:
        """Whose it is, where there are two."""
        return f', {who}' if len(self.subjects) > 1 else ''

    def _scale(self, seen: Seen) -> int:
        return max(1, round(_SIDE / max(seen.pixels.shape[-2:])))

    def _size(self, seen: Seen) -> tuple[int, int]:
        return pair(side * self._scale(seen) for side in seen.pixels.shape[-2:])

    def _photograph(self, seen: Seen) -> Image.Image:
        return panels.as_image(seen.pixels, self._scale(seen))

    def _heat(self, seen: Seen, values: Tensor, caption: str, over: str) -> Tile:
        row, column = divmod(int(values.argmax()), seen.grid[1])
        return Tile(
            panels.importance_panel(seen.pixels, values, seen.grid, self._scale(seen)), caption,
            f'{caption} over {over}; the most in row {row + 1}, column {column + 1}', True)

    def _cosines(self, seen: Seen, cosines: Tensor, who: str, over: str) -> Tile:
        low, high = cosines.min().item(), cosines.max().item()
        return self._heat(seen, cosines - low, f'{who}: {number(low)} to {number(high)}', over)

    def _colours(self, asked: Asked) -> list[Tile]:
        """Three principal components of the patches, over this image."""
        like: Tensor | None = None
        tiles = []
        first = asked.seen[0]
        if first.tokens.teacher is not None:
            features = first.tokens.teacher[0, -(first.tokens.student.shape[1] - 1):]
            like = panels.fit_colours(features).scores(features)
            tiles.append(self._coloured(first, like, 'teacher', asked.name))
        for who, seen in zip(self.names, asked.seen):
            features = seen.tokens.student[0, 1:]
            basis = panels.fit_colours(features)
            if like is not None and len(like) == len(features):
                basis = panels.turn_colours(basis, features, like)
            scores = basis.scores(features)
            like = scores if like is None else like
            tiles.append(self._coloured(seen, scores, f'encoder{self._of(who)}', asked.name))
        return tiles

    def _coloured(self, seen: Seen, scores: Tensor, who: str, name: str) -> Tile:
        return Tile(panels.feature_panel(scores, seen.grid, self._size(seen)), who,
                    f'features of the patches of "{name}" as colours: {who}', False)

    def _attempt_tiles(self, seen: Seen, name: str, one: Attempt, highest: float) -> list[Tile]:
        grid, visible = seen.grid, one.visible[0]
        tiles = [Tile(
            panels.mask_panel(seen.pixels, visible, grid, self._scale(seen)), 'mask',
            f'"{name}" as the encoder sees it: {len(visible)} of {grid[0] * grid[1]} patches',
            True)]
        if one.error is None:
            return tiles
        row, column = divmod(int(one.error[0].argmax()), grid[1])
        tiles.append(Tile(
            panels.error_panel(one.error[0].cpu(), grid, self._size(seen), highest, visible),
            f'error: 0 to {number(highest)} and above',
            f'error of the prediction by patch of "{name}", the largest in row {row + 1}, column '
            f'{column + 1}; dots mark patches that were seen', False))
        if one.painted is not None:
            tiles.append(Tile(panels.as_image(one.painted[0], self._scale(seen)), 'predicted',
                              f'"{name}", masked patches as predicted', True))
        else:
            basis = panels.fit_colours(seen.tokens.target[0])
            tiles.append(self._coloured(seen, basis.scores(one.predicted[0]), 'predicted', name))
        return tiles
