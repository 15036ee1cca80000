# SPDX-License-Identifier: Apache-2.0
"""An encoder that sees of every image only some patches, as in its training."""
import zlib
from pathlib import Path

import torch
from torch import Tensor

from ..errors import MilanError
from ..keyed_random import sample_key
from ..models import RandomMaskGenerator, SemanticMaskGenerator, TargetGenerator
from ..structures import pair
from .checkpoint import Checkpoint
from .encoders import Extractor, FeatureExtractor, Features
from .teachers import clip_from, teacher_of


class MaskedExtractor(Extractor):
    """Features from the visible patches alone: the others are not even encoded.

    The mask of an image is a function of the seed and its pixels, so that it does not depend on
    the batch or on the order of the images.

    Args:
        encoder: which encoder, and how images are fed to it.
        mask_ratio: share of patches that are masked.
        teacher: a CLIP; what is important to it is likelier to be visible, as
            :class:`SemanticMaskGenerator` draws it. None draws with equal chances.
        seed: of the masks.

    Raises:
        MilanError: if the ratio leaves nothing visible or nothing masked.
    """

    def __init__(self, encoder: FeatureExtractor, mask_ratio: float,
                 teacher: TargetGenerator | None = None, seed: int = 0) -> None:
        mean, std = (getattr(encoder, name).flatten().tolist()
                     for name in ('pixel_mean', 'pixel_std'))
        super().__init__(encoder.img_size, encoder.patch_size, mean, std, encoder.crop_ratio)
        self.encoder, self.teacher, self.seed, self.dim = encoder, teacher, seed, encoder.dim
        kind = RandomMaskGenerator if teacher is None else SemanticMaskGenerator
        self.mask_generator = kind(mask_ratio)
        grid = pair(side // self.patch_size for side in self.img_size)
        self.mask_generator.match_student(grid)
        self.mask_generator.eval()
        if teacher is not None:
            teacher.match_student(grid, mean, std)

    def encode(self, images: Tensor) -> Features:
        """``patches`` are the visible ones, (B, V, D) in no order; ``grid`` says (1, V)."""
        keys = torch.tensor([
            sample_key(self.seed, 0, zlib.crc32(image.numpy().tobytes()), 'look')
            for image in images.float().cpu()], device=images.device)
        if self.teacher is None:
            count = images.shape[-2] // self.patch_size * (images.shape[-1] // self.patch_size)
            importance = torch.ones(len(images), count, device=images.device)
        else:
            importance = self.teacher(images).importance
        visible = self.mask_generator(importance, keys).visible
        tokens = self.encoder.backbone(images, visible)
        patches = tokens[:, 1:]
        return Features(tokens[:, 0], patches.mean(dim=1), patches, (1, patches.shape[1]))


def masked_extractor(encoder: Extractor, masking: str, mask_ratio: float, checkpoint: str | Path,
                     teacher: str | None = None, seed: int = 0,
                     trust: bool = False) -> MaskedExtractor:
    """The encoder of a checkpoint behind masks, on its device.

    Args:
        encoder: of :func:`milan_mm.get_model`.
        masking: 'semantic' or 'random'.
        mask_ratio: share of patches that are masked.
        checkpoint: where the encoder is from; its config names the teacher.
        teacher: of semantic masks, see :func:`split_spec`; None for the one of the training.
        seed: of the masks.
        trust: see :func:`read_checkpoint`.

    Raises:
        MilanError: if it is no encoder of a checkpoint, or no teacher can be found.
    """
    if not isinstance(encoder, FeatureExtractor):
        raise MilanError('--masking hides patches from the encoder of a CHECKPOINT; a --teacher '
                         'sees whole images')
    if masking == 'random' and teacher is not None:
        raise MilanError(f'--masking-teacher {teacher} is for --masking semantic; random masks '
                         'need none')
    found = None
    if masking == 'semantic':
        found = clip_from(teacher or _teacher_of_training(checkpoint, trust))
    return MaskedExtractor(encoder, mask_ratio, found, seed).to(encoder.pixel_mean.device).eval()


def _teacher_of_training(checkpoint: str | Path, trust: bool) -> str:
    try:
        return teacher_of(Checkpoint(checkpoint, trust=trust))
    except MilanError as error:
        raise MilanError(f'{checkpoint} does not say whose importance draws semantic masks: name '
                         'a CLIP with --masking-teacher SPEC') from error
