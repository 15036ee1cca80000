# SPDX-License-Identifier: Apache-2.0
"""Training steps of MILAN here and in mmpretrain, on the same work, taken in turns."""
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import open_clip
import torch
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import Tensor, nn

from ...architectures import ARCHITECTURES
from ...inference.device import check_device
from ...registry import MODELS
from .measuring import in_words, machine

_TEACHER = 'ViT-B-16-quickgelu'
_LETTERS = {'vit-b': 'b', 'vit-l': 'l', 'vit-h': 'h'}  # mmpretrain's names of the same sizes


class Timing(NamedTuple):
    """Seconds of each step, and their medians' ratio.

    Attributes:
        ours, theirs: seconds of a step, in the order taken.
        ratio: images/s here by those there; above 1 this package is faster.
        spread: the smallest and the largest ratio of two neighbouring steps.
    """
    ours: list[float]
    theirs: list[float]

    @property
    def ratio(self) -> float:
        return statistics.median(self.theirs) / statistics.median(self.ours)

    @property
    def spread(self) -> tuple:
        ratios = [b / a for a, b in zip(self.ours, self.theirs)]
        return min(ratios), max(ratios)


def benchmark(arch: str = 'vit-b', batch_size: int = 8, steps: int = 5,
              device: str | None = None) -> Timing:
    """Takes timed steps of both in turns and prints the figures.

    Args:
        arch: size of the student.
        batch_size: number of images in a step.
        steps: number of timed steps of each.
        device: where to compute; None for a GPU if there is one.
    """
    place = check_device(device)
    with tempfile.TemporaryDirectory() as folder:
        teacher = save_teacher(Path(folder) / 'clip.pth')
        models = dict(ours=build_ours(arch, teacher), theirs=build_theirs(arch, teacher))
    parameters = {name: sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6
                  for name, model in models.items()}
    pixels = torch.randn(batch_size, 3, 224, 224, device=place)
    takers = {name: _Step(model.to(place), pixels) for name, model in models.items()}
    seconds: dict[str, list[float]] = dict(ours=[], theirs=[])
    for step in takers.values():
        step()  # not timed: memory is allocated, kernels are chosen
    for i in range(steps):
        for name, step in takers.items():
            seconds[name].append(step())
        print(f'step {i + 1} of {steps}: {seconds["ours"][-1]:.2f} s here, '
              f'{seconds["theirs"][-1]:.2f} s in mmpretrain', flush=True)
    timing = Timing(**seconds)
    rates = {name: batch_size / statistics.median(s) for name, s in seconds.items()}
    low, high = timing.spread
    print(f'\nMILAN {arch}, teacher {_TEACHER}, 224 px, batch {batch_size}, float32, forward, '
          f'backward and AdamW; {in_words(machine())}, {place}\n'
          f'here        {rates["ours"]:.2f} images/s, {parameters["ours"]:.1f} M trained '
          f'parameters\nmmpretrain  {rates["theirs"]:.2f} images/s, {parameters["theirs"]:.1f} M '
          f'trained parameters\nratio       {timing.ratio:.2f} ({low:.2f} to {high:.2f} over '
          f'{steps} pairs of steps)')
    return timing


def save_teacher(path: Path) -> Path:
    """A CLIP ViT-B/16 with random weights, in the names both read."""
    torch.save(open_clip.create_model(_TEACHER).state_dict(), path)
    return path


def build_ours(arch: str, teacher: Path) -> nn.Module:
    """The model of configs/milan."""
    return MODELS.build(dict(
        type='milan_mm.MILAN',
        backbone=dict(type='milan_mm.MaskedVisionTransformer', arch=arch),
        target_generator=dict(
            type='milan_mm.CLIPTargetGenerator', pretrained=str(teacher), quickgelu=True),
        mask_generator=dict(type='milan_mm.SemanticMaskGenerator', mask_ratio=0.75),
        neck=dict(type='milan_mm.PromptingDecoder'),
        head=dict(type='milan_mm.ReconstructionHead',
                  loss=dict(type='milan_mm.CosineReconstructionLoss')))).train()


def build_theirs(arch: str, teacher: Path) -> nn.Module:
    """mmpretrain's own MILAN, with the decoder's input width corrected (it is 1024 as shipped)."""
    model = MMPRETRAIN_MODELS.build(dict(
        type='mmpretrain.MILAN',
        backbone=dict(
            type='mmpretrain.MILANViT', arch=_LETTERS[arch], patch_size=16, mask_ratio=0.75),
        neck=dict(type='mmpretrain.MILANPretrainDecoder',
                  embed_dim=ARCHITECTURES[arch]['embed_dims']),
        head=dict(
            type='mmpretrain.MIMHead',
            loss=dict(type='mmpretrain.CosineSimilarityLoss', shift_factor=2.0, scale_factor=2.0)),
        target_generator=dict(
            type='mmpretrain.CLIPGenerator', tokenizer_path=str(teacher)))).train()
    for parameter in model.target_generator.parameters():
        parameter.requires_grad_(False)  # as shipped they are trained parameters without gradient
    return model


class _Step:
    """One step of training on the same pixels; gives its seconds."""

    def __init__(self, model: nn.Module, pixels: Tensor) -> None:
        self.model, self.pixels = model, pixels
        self.optimizer = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], lr=1e-5)

    def __call__(self) -> float:
        self._wait()
        start = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.loss(self.pixels, [])['loss'].backward()
        self.optimizer.step()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.pixels.is_cuda:
            torch.cuda.synchronize()
