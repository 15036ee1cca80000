# SPDX-License-Identifier: Apache-2.0
"""Everything that decides what CLIP is trained, but for the images."""
import math
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import MilanError

# SigLIP, Sec. 3.2: at first nearly every pair is taken for a wrong one, as nearly every one is.
_SIGMOID_START = dict(init_logit_scale=math.log(10), init_logit_bias=-10)
LOSSES = ('softmax', 'sigmoid')


def _option(default: int | float | str, text: str) -> Any:
    return field(default=default, metadata=dict(help=text))


@dataclass(frozen=True)
class ClipRecipe:
    """Everything that decides what is trained, but for the images; ``describe`` explains it."""
    steps: int = _option(650, 'Number of optimizer steps')
    batch_size: int = _option(128, 'Number of pairs in a step, each contrasted with all others')
    seed: int = _option(0, 'Seed of weights, order and augmentation')
    lr: float = _option(1e-3, 'Peak of the learning rate')
    weight_decay: float = _option(0.1, 'Weight decay of AdamW, on matrices only')
    warmup: int = _option(50, 'Number of steps of linear warm-up; a cosine to 0 follows')
    crop: float = _option(0.5, 'Least share of the area that a random crop keeps')
    jitter: float = _option(0.2, 'Largest relative change of brightness and contrast')
    patch_dropout: float = _option(0.5, 'Share of patches hidden from the image tower in '
                                   'training (FLIP): nearly twice the pairs a second')
    image_size: int = _option(64, 'Side of the square input in pixels')
    patch_size: int = _option(8, 'Side of a patch in pixels')
    width: int = _option(128, 'Width of the image tower; heads are 32 wide')
    layers: int = _option(4, 'Number of blocks of the image tower')
    text_width: int = _option(128, 'Width of the text tower')
    text_layers: int = _option(2, 'Number of blocks of the text tower')
    embed_dim: int = _option(128, 'Width of the common space')
    context_length: int = _option(16, 'Number of tokens of a caption; what is longer is cut')
    loss: str = _option('softmax', 'softmax over the batch, as CLIP has it, or sigmoid of each '
                        'pair, as SigLIP has it (arXiv 2303.15343)')

    @classmethod
    def describe(cls) -> dict[str, tuple[Any, str]]:
        """Default and meaning of every entry."""
        return {f.name: (f.default, f.metadata['help']) for f in fields(cls)}

    def model_cfg(self, patch_dropout: float = 0.0) -> dict:
        """The model in open_clip's terms; patches are dropped in training alone."""
        return dict(
            embed_dim=self.embed_dim,
            quick_gelu=True,
            vision_cfg=dict(
                image_size=self.image_size,
                patch_size=self.patch_size,
                width=self.width,
                layers=self.layers,
                head_width=32,
                patch_dropout=patch_dropout),
            text_cfg=dict(
                context_length=self.context_length,
                vocab_size=49408,
                width=self.text_width,
                heads=max(1, self.text_width // 32),
                layers=self.text_layers),
            **(_SIGMOID_START if self.loss == 'sigmoid' else {}))

    def check(self) -> None:
        """Raises MilanError where the numbers do not go together."""
        if self.image_size % self.patch_size:
            raise MilanError(f'image_size {self.image_size} is no multiple of patch_size '
                             f'{self.patch_size}; choose sizes that divide')
        for name in ('width', 'text_width'):
            if getattr(self, name) % 32:
                raise MilanError(f'{name} must be a multiple of 32 (the width of a head), '
                                 f'got {getattr(self, name)}')
        if self.loss not in LOSSES:
            raise MilanError(f'loss must be one of {LOSSES}, got {self.loss!r}')
        if self.steps < 1 or self.batch_size < 2:
            raise MilanError('at least 1 step of 2 pairs is needed, got '
                             f'steps={self.steps}, batch_size={self.batch_size}')
