# SPDX-License-Identifier: Apache-2.0
"""How the quickstart's drawings and their background are put together: as ever, or to test why.

Semantic masking shows the encoder the subject and hides the background. Whether that costs
something where the background says nothing of the class (docs/evidence.md) is seen where there is
hardly any background, and where the background does say something.
"""
from collections.abc import Sequence

from ...errors import MilanError
from .backgrounds import SCALE, Backgrounds
from .data_folder import make_pools

COMPOSITIONS = ('textured', 'filling', 'class-ground')
"""A small subject on arbitrary textures; a subject that fills the image; textures of the class."""
_FILLING = (0.95, 1.1)
_TEXTURES_OF_A_CLASS = 8


class Composition:
    """Where the background of an image comes from, and how large its subject is.

    Args:
        name: one of :data:`COMPOSITIONS`.
        seed: of the textures.
        classes: names of the classes.

    Attributes:
        scale: range of the subject's longer side, as a share of the image's.

    Raises:
        MilanError: if there is no such composition.
    """

    def __init__(self, name: str, seed: int, classes: Sequence[str]) -> None:
        if name not in COMPOSITIONS:
            raise MilanError(f'unknown composition {name!r}; known are {", ".join(COMPOSITIONS)}')
        self.scale = _FILLING if name == 'filling' else SCALE
        self._of_parts = make_pools(seed) if name != 'class-ground' else {}
        self._of_classes = {} if name != 'class-ground' else {
            label: Backgrounds([seed, 2, number], _TEXTURES_OF_A_CLASS)
            for number, label in enumerate(sorted(classes))}

    def pool(self, part: str, label: str) -> Backgrounds:
        """The textures for images of a class in 'train' or 'test'."""
        return self._of_classes[label] if self._of_classes else self._of_parts[part]
