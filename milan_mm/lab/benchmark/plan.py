# SPDX-License-Identifier: Apache-2.0
"""What a pretraining will take on GPUs that are not here: operations, memory, hours."""
import contextlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor, nn

from ...config.batch import plan_batch
from ...config.read import read_config
from ...errors import MilanError
from ...registry import MODELS
from .counting import count_flops


class Gpu(NamedTuple):
    """From the maker's data sheet: dense products in 10^12 operations per second, and memory.

    Attributes:
        half: in float16 or bfloat16; 0 where it has neither fast.
        single: in float32.
        gib: memory.
    """
    half: float
    single: float
    gib: int


GPUS = {
    'a100-40g': Gpu(312, 19.5, 40), 'a100-80g': Gpu(312, 19.5, 80), 'h100-80g': Gpu(989, 67, 80),
    'l40s-48g': Gpu(362, 91.6, 48), 'a10-24g': Gpu(125, 31.2, 24), 'v100-32g': Gpu(125, 15.7, 32),
    'rtx3090-24g': Gpu(71, 35.6, 24), 'rtx4090-24g': Gpu(165, 82.6, 24), 't4-16g': Gpu(65, 8.1, 16),
}
#: Of the peak, where nothing was measured: that of the paper's run, 39 hours on 8 A100.
USUAL_SHARE = 0.12
_OTHER_GIB = 1.5  # CUDA's context, kernels' workspaces and what the allocator leaves unused


class Plan(NamedTuple):
    """What a run takes.

    Attributes:
        gflop: of one image, forward and backward, teacher included.
        images: in all epochs.
        hours: by the assumed share of the peak.
        gib: memory of each GPU.
    """
    gflop: float
    images: int
    hours: float
    gib: float


def plan(config: str | Path, gpus: int = 8, gpu: str = 'a100-40g', share: float = USUAL_SHARE,
         num_images: int = 1281167) -> Plan:
    """Counts one image's step on the CPU, and prints what the whole run takes.

    Args:
        config: of a pretraining.
        gpus: how many.
        gpu: which of :data:`GPUS`.
        share: of the GPUs' peak that the run reaches.
        num_images: of the training set.

    Raises:
        MilanError: for another kind of config, or numbers that cannot be.
    """
    if not 0 < share <= 1 or gpus < 1 or num_images < 1:
        raise MilanError(f'--share is above 0 and at most 1, --gpus and --num-images from 1; got '
                         f'{share}, {gpus} and {num_images}')
    cfg = read_config(config)
    if not hasattr(cfg.get('model'), 'target_generator'):
        raise MilanError(f'{config} is no pretraining; plan counts those of configs/milan, '
                         'configs/mae and configs/mask_align')
    batch, epochs = plan_batch(cfg, gpus), cfg.train_cfg.max_epochs
    half = (cfg.optim_wrapper.get('type', '').endswith(('AmpOptimWrapper', 'AutocastOptimWrapper'))
            or 'mixed_precision' in str(cfg.get('strategy')))
    model = _model(cfg)
    gflop, kept = _one_image(model, half)
    peak = (GPUS[gpu].half if half else GPUS[gpu].single) * 1e12
    images = num_images * epochs
    hours = gflop * 1e9 * images / (gpus * peak * share) / 3600
    sharded = gpus if 'model_wrapper' in str(cfg.get('strategy')) else 1
    trained, frozen = _numbers(model)
    # Weights, their gradients and AdamW's two moments, in float32.
    gib = (16 * trained / sharded + 4 * frozen + kept * batch.per_process) / 2**30 + _OTHER_GIB
    print(f'{config}: {batch.per_process} images x {gpus} {gpu} x {batch.accumulation} '
          f'accumulated = {batch.effective} an update' + (
              f' (the recipe has {batch.recipe})' if batch.recipe not in (None, batch.effective)
              else '') +
          f'\nwork     {gflop:.1f} GFLOP an image, teacher included; {images:,} images in {epochs} '
          f'epochs: {gflop * images * 1e9:.2e} FLOP\nmemory   {gib:.1f} of {GPUS[gpu].gib} GiB a '
          f'GPU: {16 * trained / sharded / 2**30:.1f} for {trained / 1e6:.0f} M trained parameters '
          f'with gradients and moments, {4 * frozen / 2**30:.1f} for the teacher, '
          f'{kept * batch.per_process / 2**30:.1f} kept for the backward pass, {_OTHER_GIB} besides'
          + ('' if gib < GPUS[gpu].gib else '\n         too much: lower '
             'train_dataloader.batch_size and raise optim_wrapper.accumulative_counts') +
          f'\ntime     {hours:.1f} hours, IF {share:.0%} of the peak of {peak / 1e12:.0f} TFLOP/s '
          f'in {"half precision" if half else "float32"} is reached; milan benchmark step measures '
          f'the share\nloading  {images / hours / 3600:.0f} images/s must be read and '
          'augmented for that; milan benchmark data measures them')
    return Plan(gflop, images, hours, gib)


def _model(cfg: Config) -> nn.Module:
    teacher = cfg.model.target_generator
    if teacher.get('model') and 'pretrained' in teacher:
        teacher.pretrained = None  # random weights compute as much
    return MODELS.build(cfg.model).train()


def _one_image(model: nn.Module, half: bool) -> tuple[float, float]:
    """GFLOP of a step of one image, and the bytes that its forward pass keeps."""
    rows, columns = model.backbone.grid_size
    patch = model.backbone.patch_size
    pixels = torch.randn(1, 3, rows * patch, columns * patch)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def step() -> None:
        precision: Any = (torch.autocast('cpu', torch.bfloat16) if half
                          else contextlib.nullcontext())
        with precision, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = model.loss(pixels)['loss']
        loss.backward()

    gflop = count_flops(step) / 1e9
    casts = 2 * sum(p.numel() for p in model.parameters() if p.ndim > 1) if half else 0
    return gflop, max(sum(kept.values()) - casts, 0)


def _numbers(model: nn.Module) -> tuple[int, int]:
    """Trained numbers, and those of the teachers."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trained, sum(p.numel() for one in model.teachers for p in one.parameters())
