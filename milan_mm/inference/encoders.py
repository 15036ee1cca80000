# SPDX-License-Identifier: Apache-2.0
"""A trained encoder in three lines.

.. code-block:: python

    import milan_mm
    model = milan_mm.get_model('work_dirs/milan_vitb/epoch_400.pth')
    out = model(['a.jpg', 'b.png'])   # out.cls, out.pooled, out.patches, out.grid
"""
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.logging import MMLogger, print_log
from torch import Tensor, nn

from ..architectures import ARCHITECTURES, IMAGENET_CROP_RATIO
from ..checkpoints.handover import load_encoder
from ..checkpoints.spec import EncoderSpec, encoder_options
from ..checkpoints.vit import ViTWeights, read_vit
from ..checkpoints.zoo import entries, nearest
from ..errors import MilanError
from ..keyed_random import seeded_globals
from ..models import MaskedVisionTransformer, TargetGenerator
from ..models.encoder import check_tiling
from ..structures import pair
from .images import ImageLike, load_pixels
from .teachers import clip_from

Size = int | tuple[int, int]


class Features(NamedTuple):
    """What an encoder says of a batch.

    Attributes:
        cls: (B, D) the CLS token; of a ViT without one, ``pooled``.
        pooled: (B, D) mean of the patch tokens.
        patches: (B, N, D) the patch tokens in raster order.
        grid: rows and columns of patches; their product is N.
    """
    cls: Tensor
    pooled: Tensor
    patches: Tensor
    grid: tuple[int, int]


class Extractor(nn.Module):
    """Base: images in, :class:`Features` out. A subclass writes :meth:`encode`.

    Args:
        img_size: height and width that images are brought to; a batch that is a tensor
            already may have any size that patches tile.
        patch_size: side of a patch in pixels.
        pixel_mean, pixel_std: per channel (RGB), in 0..255.
        crop_ratio: share of the largest central crop, see :class:`ResizeAndCenterCrop`.

    Attributes:
        dim: D.

    Raises:
        MilanError: if the patches do not tile the image.
    """
    dim: int

    def __init__(self, img_size: Size, patch_size: int, pixel_mean: Sequence[float],
                 pixel_std: Sequence[float], crop_ratio: float = IMAGENET_CROP_RATIO) -> None:
        super().__init__()
        check_tiling(img_size, patch_size)
        self.img_size = pair(img_size)
        self.patch_size = patch_size
        self.crop_ratio = crop_ratio
        for name, values in (('pixel_mean', pixel_mean), ('pixel_std', pixel_std)):
            buffer = torch.tensor(list(values), dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    def encode(self, images: Tensor) -> Features:
        """Features of normalised pixels (B, 3, H, W)."""
        raise NotImplementedError

    def forward(self, images: Tensor | ImageLike | Sequence[ImageLike]) -> Features:
        """Encodes a batch.

        Args:
            images: Pillow images or paths, one or a list; or normalised pixels
                (B, 3, H, W) or (3, H, W) of any height and width that patches tile.
        """
        if not isinstance(images, Tensor):
            images = self.normalise(self.load(images))
        if images.ndim == 3:
            images = images[None]
        channels = len(self.pixel_mean)
        if images.ndim != 4 or images.shape[1] != channels or not images.is_floating_point():
            raise MilanError(f'expected normalised pixels (B, {channels}, H, W), got '
                             f'{images.dtype} {tuple(images.shape)}. Give images or paths, or '
                             'pass a uint8 batch through normalise() first')
        check_tiling(pair(images.shape[-2:]), self.patch_size)
        return self.encode(images.to(self.pixel_mean.device))

    def load(self, images: ImageLike | Sequence[ImageLike]) -> Tensor:
        """Images or paths to pixels (B, 3, H, W) in uint8, RGB, of ``img_size``."""
        if len(self.pixel_mean) != 3:
            raise MilanError(f'this encoder takes {len(self.pixel_mean)} channels, and images are '
                             'read as RGB: give it pixels (B, C, H, W), see normalise()')
        return load_pixels(images, self.img_size, self.crop_ratio)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels in 0..255 (B, 3, H, W) to what :meth:`encode` takes, on the model's device."""
        pixels = pixels.to(self.pixel_mean.device, non_blocking=True)
        return (pixels.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std


class FeatureExtractor(Extractor):
    """A ViT of this package or of mmpretrain.

    Images of another size than the encoder was trained on get interpolated positions: of
    sine-cosine ones the bicubic interpolation is, within 2 %, the sine-cosine of the rescaled
    coordinate, so a patch keeps the position it has in the image.

    Args:
        backbone: an encoder with ``out_type='raw'``.
        img_size, pixel_mean, pixel_std, crop_ratio: see :class:`Extractor`.
    """

    def __init__(self, backbone: MaskedVisionTransformer, img_size: Size,
                 pixel_mean: Sequence[float], pixel_std: Sequence[float],
                 crop_ratio: float = IMAGENET_CROP_RATIO) -> None:
        super().__init__(img_size, backbone.patch_size, pixel_mean, pixel_std, crop_ratio)
        self.backbone = backbone
        self.dim = backbone.embed_dims

    def encode(self, images: Tensor) -> Features:
        tokens = self.backbone(images)[-1]
        grid = pair(side // self.patch_size for side in images.shape[-2:])
        return _as_features(tokens, grid)


class TeacherExtractor(Extractor):
    """A teacher with a CLS token, seen as an encoder of width T.

    Args:
        teacher: the target generator, matched to a student of these images and patches.
        img_size, patch_size, pixel_mean, pixel_std, crop_ratio: see :class:`Extractor`.
    """

    def __init__(self, teacher: TargetGenerator, img_size: Size, patch_size: int,
                 pixel_mean: Sequence[float], pixel_std: Sequence[float],
                 crop_ratio: float = IMAGENET_CROP_RATIO) -> None:
        super().__init__(img_size, patch_size, pixel_mean, pixel_std, crop_ratio)
        self.teacher = teacher
        self.dim = teacher.dim
        self.grid = pair(side // patch_size for side in self.img_size)

    def encode(self, images: Tensor) -> Features:
        if tuple(images.shape[-2:]) != self.img_size:
            raise MilanError(f'this teacher is set to images of {self.img_size}, got '
                             f'{tuple(images.shape[-2:])}; set img_size to that')
        return _as_features(self.teacher(images).features, self.grid)


def get_model(path_or_name: str | Path | ViTWeights,
              pretrained: bool | None = None,
              *,
              img_size: Size | None = None,
              crop_ratio: float | None = None,
              seed: int = 0,
              weights: str | None = None,
              trust_checkpoint: bool = False) -> FeatureExtractor:
    """An encoder in eval mode, its parameters frozen.

    Args:
        path_or_name: a ViT of any format that :func:`read_vit` knows, or what it read; or a name of
            :func:`list_models`, whose weights are downloaded at first use; or an architecture,
            'vit-s', 'vit-b', 'vit-l' or 'vit-h' (patch 16, 224 px).
        pretrained: None takes the weights of a checkpoint, and random ones for an architecture;
            True insists on weights; False takes the architecture only, with random weights.
        img_size: what images are brought to; None for the size of the training.
        crop_ratio: see :class:`ResizeAndCenterCrop`; 1 keeps as much of an image as fits. None for
            what the checkpoint says it shall be evaluated with, .875 if it says nothing.
        seed: seed of random weights.
        weights: 'ema' or 'raw', of a file that holds both; None takes the averaged ones.
        trust_checkpoint: see :func:`milan_mm.checkpoints.io.read_checkpoint`.

    Raises:
        MilanError: if there is no such file or architecture, or the file holds other weights.
    """
    vit = _read(path_or_name, trust_checkpoint, weights)
    if vit is None and pretrained:
        raise MilanError(f'no weights come with {path_or_name}. Give the path of a checkpoint, or '
                         'leave pretrained out for random weights')
    spec = vit.spec if vit else EncoderSpec(
        dict(ARCHITECTURES[str(path_or_name)]), (224, 224), 16)
    with seeded_globals(seed):
        backbone = MaskedVisionTransformer(
            **encoder_options(vit.encoder if vit else None, spec))
        if vit is None or pretrained is False:
            _init_quietly(backbone)
            print_log(f'{vit.source if vit else path_or_name}: random weights (seed {seed}), '
                      'nothing is trained', logger='current', level=logging.WARNING)
    if vit is not None and pretrained is not False:
        print_log(load_encoder(backbone, vit), logger='current')
    model = FeatureExtractor(
        backbone, img_size or spec.img_size, spec.pixel_mean, spec.pixel_std,
        spec.crop_ratio if crop_ratio is None else crop_ratio)
    return model.requires_grad_(False).eval()


def random_like(path: str | Path, seed: int = 0, **kwargs: Any) -> FeatureExtractor:
    """The architecture, sizes and pixel statistics of a checkpoint, with fresh weights."""
    return get_model(path, pretrained=False, seed=seed, **kwargs)


def get_teacher(spec: str,
                img_size: Size | None = None,
                patch_size: int | None = None,
                crop_ratio: float = IMAGENET_CROP_RATIO,
                quickgelu: bool | None = None) -> TeacherExtractor:
    """A CLIP teacher, in eval mode, to be measured like a student.

    Its pixels are normalised with the tower's own mean and standard deviation.

    Args:
        spec: a file or folder of CLIP weights, or ``MODEL:TAG_OR_FILE``; see :func:`split_spec`.
        img_size: height and width of the images; None for the tower's own.
        patch_size: patch size of the student whose grid it shall have; None for the tower's own.
        crop_ratio: see :class:`Extractor`.
        quickgelu: see :class:`CLIPTargetGenerator`.
    """
    teacher = clip_from(spec, quickgelu)
    tower = teacher.tower
    patch_size = patch_size or tower.patch_size
    size = pair(img_size or (side * patch_size for side in tower.grid_size))
    mean, std = ([255 * v for v in values] for values in (tower.mean, tower.std))
    extractor = TeacherExtractor(teacher, size, patch_size, mean, std, crop_ratio)
    teacher.match_student(extractor.grid, mean, std)
    return extractor.eval()


def _read(path_or_name: str | Path | ViTWeights, trust: bool,
          weights: str | None = None) -> ViTWeights | None:
    """None for the name of an architecture."""
    if isinstance(path_or_name, ViTWeights):
        return path_or_name
    named = Path(path_or_name).as_posix() in entries()
    if Path(path_or_name).expanduser().exists() or named:
        return read_vit(path_or_name, trust, weights=weights)
    if str(path_or_name) in ARCHITECTURES:
        return None
    raise MilanError(f'no such checkpoint: {path_or_name}. Give the path of a .pth or .safetensors '
                     f'file, a name of milan_mm.list_models(){nearest(path_or_name)}, or one of '
                     f'{sorted(ARCHITECTURES)} for random weights')


def _as_features(tokens: Tensor, grid: tuple[int, int]) -> Features:
    """tokens (B, 1 + N, D), CLS first; of (B, N, D), without CLS, the mean is taken for it."""
    patches = tokens[:, -(grid[0] * grid[1]):]
    pooled = patches.mean(dim=1)
    return Features(tokens[:, 0] if tokens.shape[1] > patches.shape[1] else pooled, pooled,
                    patches, grid)


def _init_quietly(backbone: MaskedVisionTransformer) -> None:
    """mmengine would log two lines for every parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        backbone.init_weights()
    finally:
        logger.setLevel(level)
