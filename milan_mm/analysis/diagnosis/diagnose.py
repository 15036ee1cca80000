# SPDX-License-Identifier: Apache-2.0
"""Everything that is measured, in one pass over some images."""
import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...datasets.stream import ImageStream, central_crops
from ...errors import MilanError
from ...evaluation.collapse import collapse_measures
from ...inference.pretraining import mask_keys
from ...keyed_random import sample_key, seeded_globals, uniform
from ...models import MaskedVisionTransformer
from ...models.encoder import init_transformer
from ..activations import cls_and_patches, mlp_inputs, on_attention, on_output, token_blocks
from .cka import MinibatchCKA
from .measures import AttentionDistance, Deciles, UnitCounts
from .subject import Subject

PATCHES = 8  # of each image: neighbours are so alike that more of them tell little new
_LEAST = 8  # images


class Layers(NamedTuple):
    """What a tower said of a batch, layer by layer.

    Attributes:
        names: names of the layers.
        cls: (B, C) of each, the image's token.
        patches: (B, K, C) of each, some patches.
    """
    names: list[str]
    cls: list[Tensor]
    patches: list[Tensor]


class Collector:
    """Sums up what is measured, batch by batch.

    Args:
        subject: what is examined.
        batch_size: CKA takes whole batches only, so that each has the same weight.
        seed: seed of masks and of the patches that are looked at.
    """

    def __init__(self, subject: Subject, batch_size: int, seed: int) -> None:
        self.subject, self.batch_size, self.seed = subject, batch_size, seed
        backbone = subject.backbone
        self.blocks = list(backbone.layers)
        self.maps = mlp_inputs(self.blocks)
        self.fresh = fresh_like(backbone, seed)
        self.teacher_blocks = token_blocks(subject.reference) if subject.reference else []
        self.distance = AttentionDistance(
            len(self.blocks), backbone.grid_size, backbone.patch_size)
        self.units = UnitCounts(len(self.maps))
        self.deciles = Deciles()
        self.cka = dict(cls=MinibatchCKA(), patches=MinibatchCKA())
        self.kept: dict[str, list[Layers]] = dict(student=[], teacher=[])
        self.left_out: dict[str, str] = {}

    @torch.no_grad()
    def add(self, pixels: Tensor, samples: list[int]) -> None:
        """Takes in images (B, 3, H, W) uint8, ``samples`` being their numbers."""
        inputs = self.subject.normalise(pixels)
        keys = torch.tensor([sample_key(self.seed, 0, i, 'patches') for i in samples])
        patches = self.subject.backbone.grid_size[0] * self.subject.backbone.grid_size[1]
        ids = uniform(keys, patches).argsort(dim=1)[:, :PATCHES].to(inputs.device)
        student = self.run_student(inputs, ids, patches)
        self.kept['student'].append(student)
        importance = None
        if self.subject.reference is not None:
            teacher, importance = self.run_teacher(inputs, ids, patches)
            self.kept['teacher'].append(teacher)
            if len(pixels) == self.batch_size:
                fresh = _pick(dict(output=self.fresh(inputs)[-1]), ids, patches)
                self.cka['cls'].add(student.cls + fresh.cls, teacher.cls)
                self.cka['patches'].add(*([one.flatten(0, 1) for one in layers] for layers in (
                    student.patches + fresh.patches, teacher.patches)))
        self.add_errors(inputs, importance, mask_keys(self.seed, samples).to(inputs.device))

    def run_student(self, inputs: Tensor, ids: Tensor, patches: int) -> Layers:
        """The whole image through the encoder."""
        seen: dict[str, Tensor] = {}
        with on_output(self.blocks, lambda i, tokens: seen.update({f'block {i + 1}': tokens})), \
                on_attention(self.blocks, self.distance.add), \
                on_output(self.maps, self.units.add):
            seen['output'] = self.subject.backbone(inputs)[-1]
        return _pick(seen, ids, patches)

    def run_teacher(self, inputs: Tensor, ids: Tensor,
                    patches: int) -> tuple[Layers, Tensor | None]:
        """Its layers, and the importance (B, N) if it measures one."""
        seen: dict[str, Tensor] = {}
        teacher = self.subject.reference
        with on_output(self.teacher_blocks,
                       lambda i, tokens: seen.update({f'block {i + 1}': tokens})):
            output = teacher(inputs)
        seen['target'] = output.features
        layers = _pick(seen, ids, patches)
        if len(layers.names) < len(seen):
            self.left_out['teacher_layers'] = (
                f'{len(seen) - len(layers.names)} layers of the teacher have another grid than '
                'the student and are not compared')
        return layers, output.importance if teacher.measures_importance else None

    def add_errors(self, inputs: Tensor, importance: Tensor | None, keys: Tensor) -> None:
        """Mask, encode, decode and compare, as the training's step does."""
        model = self.subject.model
        if model is None or not model.predicts:
            self.left_out['deciles'] = 'there is no decoder whose predictions could be compared'
            return
        target = model.teach(inputs)
        if model.measures_importance:
            importance = target.importance
        if importance is None:
            self.left_out['deciles'] = (
                'the target of this training measures no importance of patches; with --teacher, a '
                'CLIP\'s is taken')
            return
        masks = model.mask_generator(target.importance, keys)
        error = model.head.patch_errors(model.predict(inputs, masks), target.features)
        self.deciles.add(importance, error, masks.visible)

    def value(self) -> dict[str, Any]:
        """Plain data, for JSON; a measure that could not be taken is None."""
        result: dict[str, Any] = dict(
            cka=None, attention_distance=dict(
                pixels=self.distance.value(), even=self.distance.even()),
            spread={name: spread_by_layer(kept) for name, kept in self.kept.items() if kept},
            units=self.units.value() if self.maps else None,
            deciles=None)
        if self.cka['cls'].batches:
            tables = {name: _plain(cka.value()) for name, cka in self.cka.items()}
            result['cka'] = dict(
                rows=self.kept['student'][0].names, columns=self.kept['teacher'][0].names,
                batches=self.cka['cls'].batches, batch=self.batch_size,
                patches_a_image=self.kept['student'][0].patches[0].shape[1],
                random={name: table[-1] for name, table in tables.items()},
                **{name: table[:-1] for name, table in tables.items()})
        elif self.subject.reference is None:
            self.left_out['cka'] = 'there is no teacher to compare with; --teacher names one'
        if 'deciles' not in self.left_out:
            head = self.subject.model.head
            result['deciles'] = dict(
                self.deciles.value(), measure=head.loss_module.measure, trained_on=head.tokens)
        if not self.maps:
            self.left_out['units'] = 'the MLPs of this encoder are of another kind'
        return dict(result, left_out=self.left_out)


def diagnose(subject: Subject,
             data: str | Path,
             images: int = 512,
             batch_size: int = 64,
             seed: int = 0,
             log: Callable[[str], None] = print) -> dict[str, Any]:
    """Measures an encoder on some images of a folder; labels are not needed.

    Features of 1 + 8 tokens of every layer are held in memory: 4 bytes x 9 x images x layers of
    both towers x width, 370 MB for 512 images, two ViT-B.

    Args:
        subject: what :func:`load_subject` gave.
        data: a folder; sub-folders are gone into.
        images: how many; drawn by ``seed`` if there are more.
        batch_size: images at a time, and the examples of one estimate of CKA.
        seed: seed of the draw, of the masks, of the patches looked at.
        log: receives lines of progress.

    Returns:
        Plain data for JSON: ``cka`` (in ``random`` the output of the same encoder with fresh
        weights, a floor to compare with), ``attention_distance``, ``spread`` (effective rank and
        collapse by layer), ``units``, ``deciles``, each None where ``left_out`` says why; and
        what was looked at.

    Raises:
        MilanError: if there are fewer than 8 images that can be decoded.
    """
    size = tuple(subject.backbone.img_size)
    folder = central_crops(data, size)
    rng = np.random.default_rng(sample_key(seed, 0, 0, 'diagnose'))
    chosen = rng.permutation(len(folder))[:images].tolist()
    batch_size = max(1, min(batch_size, len(chosen)))
    collector = Collector(subject, batch_size, seed)
    stream = ImageStream(folder, batch_size, order=chosen, title='images', log=log)
    for numbers, pixels in stream:
        collector.add(pixels, numbers)
    count = len(chosen) - len(stream.unreadable)
    if count < _LEAST:
        raise MilanError(f'{data}: {count} images can be decoded, and at least {_LEAST} are '
                         'needed to tell layers apart (some hundreds for figures to rely on)')
    backbone = subject.backbone
    return dict(
        checkpoint=subject.source, data=str(data), images=count, unreadable=stream.unreadable,
        seed=seed, teacher=subject.reference_name or None, notes=subject.notes,
        encoder=dict(layers=len(backbone.layers), width=backbone.embed_dims,
                     grid=list(backbone.grid_size), patch_size=backbone.patch_size,
                     img_size=list(size)), **collector.value())


def spread_by_layer(kept: list[Layers]) -> dict[str, Any]:
    """:func:`collapse_measures` of every layer, for the image's token and for patches."""
    rows: dict[str, Any] = dict(layers=kept[0].names)
    for kind in ('cls', 'patches'):
        measured = []
        for layer in range(len(kept[0].names)):
            parts = [getattr(batch, kind)[layer] for batch in kept]
            features = torch.cat([part.flatten(0, -2) for part in parts])
            measured.append(dict(collapse_measures(features),
                                 most=min(len(features) - 1, features.shape[1])))
        rows[kind] = measured
    return rows


def fresh_like(backbone: MaskedVisionTransformer, seed: int) -> MaskedVisionTransformer:
    """The same encoder with weights that nothing was trained into."""
    fresh = copy.deepcopy(backbone)
    with seeded_globals(sample_key(seed, 0, 0, 'fresh encoder')):
        fresh.apply(init_transformer)
        fresh.init_fresh()
    return fresh


def _plain(table: Tensor) -> list[list[float | None]]:
    """For JSON, which knows no NaN."""
    return [[value if math.isfinite(value) else None for value in row] for row in table.tolist()]


def _pick(seen: dict[str, Tensor], ids: Tensor, patches: int) -> Layers:
    picked = {name: cls_and_patches(tokens, ids, patches) for name, tokens in seen.items()}
    there = {name: pair for name, pair in picked.items() if pair is not None}
    return Layers(list(there), [pair[0].cpu() for pair in there.values()],
                  [pair[1].cpu() for pair in there.values()])
