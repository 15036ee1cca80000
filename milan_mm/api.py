# SPDX-License-Identifier: Apache-2.0
"""The whole job from Python, by the routes of ``milan pretrain`` and ``milan extract``.

.. code-block:: python

    import milan_mm
    checkpoint = milan_mm.pretrain('images', out='work_dirs/mine')
    model = milan_mm.get_model(checkpoint)
    table = milan_mm.embed('images', checkpoint)    # table.features['cls'], table.paths
"""
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .checkpoints.io import last_checkpoint
from .config.sources import Roots, count_images, open_source, split_weight
from .datasets.channels import SUFFIXES as CHANNEL_SUFFIXES
from .datasets.channels import LoadChannels, channel_statistics
from .datasets.decoding import SUFFIXES
from .engine.train import train, world_size
from .errors import MilanError
from .evaluation.extract import extract_features
from .evaluation.features import FeatureTable, collect_features, evaluation_mode, image_folder
from .inference.device import check_device
from .inference.encoders import Size, get_model
from .inference.teachers import split_spec

IMAGES_PER_UPDATE = 512


class Recipe(NamedTuple):
    """What a size of ViT is trained with in ``configs/milan``.

    Attributes:
        batch_size: images a GPU.
        patch_size: in pixels.
        teacher: ``MODEL:TAG``.
    """
    batch_size: int
    patch_size: int = 16
    teacher: str = 'ViT-B-16-quickgelu:openai'


RECIPES = {
    'vit-s': Recipe(128),
    'vit-b': Recipe(128),
    'vit-l': Recipe(64, teacher='ViT-L-14-quickgelu:openai'),
    'vit-h': Recipe(32, 14, 'ViT-L-14-quickgelu:openai'),
}


def pretrain(data: Roots, out: str | Path | None = None, arch: str = 'vit-b',
             teacher: str | Path | None = None, epochs: int | None = None, *,
             init_from: str | Path | None = None, batch_size: int | None = None,
             img_size: int = 224, workers: int = 8, seed: int = 0, resume: str | None = None,
             channels: int | None = None, teacher_channels: Sequence[int] | None = None,
             value_range: Sequence[float] | None = None, compile: bool = False,
             launcher: str = 'none', cfg_options: dict | None = None,
             trust_checkpoint: bool = False, verbose: bool = False,
             dry_run: bool = False) -> Path | None:
    """Pretrains an encoder on the images of a folder: ``configs/milan/own_images.py``.

    Args:
        data: folder of images, sub-folders included; no labels. Or a list of images (CSV, JSON,
            Parquet, text), or shards; or several of all these, each with ``:WEIGHT`` after it.
        out: folder for logs and checkpoints; None for ``work_dirs/own_images``.
        arch: 'vit-s', 'vit-b', 'vit-l' or 'vit-h'.
        teacher: a CLIP, see :func:`split_spec`; None for OpenAI's that goes with ``arch``.
        epochs: to train for; None for 400, or with ``init_from`` 40.
        init_from: an earlier run or other weights to start from, with the shorter schedule of
            ``own_images_continue.py``.
        batch_size: images a process at a time; None for what a GPU of 40 GB holds, or as many as
            there are. Gradients are accumulated to about 512 images an update, and the learning
            rate follows.
        img_size: side of the images in pixels.
        workers: processes that read images.
        seed: of weights, order, augmentation and masks.
        resume: 'auto', or a checkpoint of a stopped run.
        channels: of images that are not RGB, see :class:`LoadChannels`; None for RGB.
        teacher_channels: three of them for the teacher, in its order; None for the first three, or
            the first one thrice where there are fewer.
        value_range: of their values, what becomes 0 and 255.
        compile, launcher, trust_checkpoint, verbose, dry_run: see
            :func:`milan_mm.engine.train.train`.
        cfg_options: other changes of the config, dotted keys to values.

    Returns:
        The last checkpoint; None where ``cfg_options`` have it save none, and of a dry run.

    Raises:
        MilanError: for what is the user's to mend.
    """
    suffixes = SUFFIXES if channels is None else CHANNEL_SUFFIXES
    options = recipe_options(arch, teacher, batch_size, img_size, processes=world_size(launcher),
                             images=count_images(data, suffixes))
    if channels is not None:
        del options['train_dataloader.dataset.pipeline.1.size']
        options.update(channel_options(data, channels, teacher_channels, value_range, img_size))
    options.update({
        'train_dataloader.num_workers': workers,
        'train_dataloader.persistent_workers': workers > 0,
        'randomness.seed': seed, **(cfg_options or {})})
    config = 'own_images_continue' if init_from else 'own_images'
    folder = train(
        f'milan_mm::milan/{config}.py', work_dir=out, data_root=data, epochs=epochs,
        init_from=str(init_from) if init_from else None, resume=resume, compile=compile,
        launcher=launcher, cfg_options=options, trust_checkpoint=trust_checkpoint,
        verbose=verbose, dry_run=dry_run)
    return None if dry_run else last_checkpoint(folder)


def channel_options(data: Roots, channels: int, teacher_channels: Sequence[int] | None = None,
                    value_range: Sequence[float] | None = None,
                    img_size: int = 224) -> dict[str, Any]:
    """What images of other channels than RGB change in ``own_images.py``.

    Mean and standard deviation of each channel are measured on some of the images.

    Raises:
        MilanError: if none of these can be read.
    """
    root = split_weight(data if isinstance(data, (str, Path)) else data[0])[0]
    mean, std = channel_statistics(open_source(root, CHANNEL_SUFFIXES),
                                   LoadChannels(channels, value_range))
    if teacher_channels is None:
        teacher_channels = (0, 1, 2) if channels > 2 else (0, 0, 0)
    return {
        'train_dataloader.dataset.pipeline': [
            dict(type='milan_mm.LoadChannels', channels=channels, value_range=value_range),
            dict(type='milan_mm.RandomResizedCropAndFlip', size=img_size, scale=(0.2, 1.0)),
            dict(type='milan_mm.PackImageInputs')],
        'train_dataloader.dataset.suffixes': list(CHANNEL_SUFFIXES),
        'model.backbone.in_channels': channels,
        'model.teacher_channels': list(teacher_channels),
        'data_preprocessor.mean': mean, 'data_preprocessor.std': std}


def recipe_options(arch: str, teacher: str | Path | None = None, batch_size: int | None = None,
                   img_size: int = 224, *, images: int, processes: int = 1) -> dict[str, Any]:
    """What a size of ViT, a teacher and a number of images change in ``own_images.py``.

    Raises:
        MilanError: if there is no such size.
    """
    if arch not in RECIPES:
        raise MilanError(f'arch must be one of {", ".join(RECIPES)}, got {arch!r}')
    recipe = RECIPES[arch]
    batch_size = batch_size or max(1, min(recipe.batch_size, images // processes))
    model, pretrained = split_spec(str(teacher or recipe.teacher))
    return {
        'model.backbone.arch': arch, 'model.backbone.img_size': img_size,
        'model.backbone.patch_size': recipe.patch_size,
        'model.target_generator.model': model, 'model.target_generator.pretrained': pretrained,
        'train_dataloader.batch_size': batch_size,
        'train_dataloader.dataset.pipeline.1.size': img_size,
        'optim_wrapper.accumulative_counts': max(
            1, min(IMAGES_PER_UPDATE, images) // (batch_size * processes))}


def embed(data: str | Path, checkpoint: str | Path, out: str | Path | None = None, *,
          kinds: Sequence[str] = ('cls', ), img_size: Size | None = None,
          crop_ratio: float | None = None, batch_size: int = 64, workers: int = 2,
          device: str | None = None, trust_checkpoint: bool = False) -> FeatureTable | Path:
    """Features of the images of a folder, and their paths.

    Args:
        data: the folder, sub-folders included.
        checkpoint: any encoder that :func:`get_model` reads.
        out: ``.npz`` or ``.safetensors`` file to write them to instead of memory.
        kinds: 'cls' and 'pooled'; into a file also 'patches'.
        img_size, crop_ratio, trust_checkpoint: see :func:`get_model`.
        batch_size, workers: see :func:`collect_features`.
        device: to compute on; None for a GPU if there is one.

    Returns:
        A table with ``features`` and ``paths``; of ``out``, its path.

    Raises:
        MilanError: for what is the user's to mend.
    """
    model = get_model(checkpoint, img_size=img_size, crop_ratio=crop_ratio,
                      trust_checkpoint=trust_checkpoint).to(check_device(device))
    if out is not None:
        extract_features(model, data, out, kinds, batch_size=batch_size, workers=workers)
        return Path(out)
    with evaluation_mode(model):
        return collect_features(model, image_folder(model, data, with_label=False), kinds,
                                batch_size, workers)
