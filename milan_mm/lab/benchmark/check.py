# SPDX-License-Identifier: Apache-2.0
"""Whether everything trains as it should on a device: each part at its smallest, in minutes."""
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from ...compat.sync_bn import replace_sync_bn
from ...config.read import read_config
from ...engine.train import compile_loss
from ...errors import MilanError
from ...evaluation.parity import TOLERANCE, parity_errors
from ...inference.device import check_device
from ...registry import MODELS
from ...resources import RESOURCES
from .measuring import report
from .step import benchmark as benchmark_step

_CLIP = dict(
    embed_dim=48, quick_gelu=True,
    vision_cfg=dict(image_size=32, layers=3, width=64, head_width=32, patch_size=8),
    text_cfg=dict(context_length=16, vocab_size=64, width=32, heads=2, layers=1))
_VIT = dict(embed_dims=48, num_layers=2, num_heads=4, feedforward_channels=96)
_BOUNDS = {torch.bfloat16: 0.02, torch.float16: 0.005}  # of the loss, relative
_RECORDED = RESOURCES / 'tests/data/reference_tiny.safetensors'


def benchmark(device: str | None = None, quick: bool = False,
              json_file: str | Path | None = None) -> None:
    """Runs every check and prints what came of it.

    Args:
        device: where; None for a GPU if there is one.
        quick: few steps and small batches, as for a CPU.
        json_file: see :func:`report`.

    Raises:
        MilanError: if a check failed; the table is printed and written before.
    """
    place = check_device(device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, check in _checks(place, quick, Path(folder), figures):
            start = time.perf_counter()
            try:
                said, passed = check(), True
            except Exception as error:  # the others are to run all the same
                said, passed = f'{type(error).__name__}: {error}'.replace('\n', ' ')[-300:], False
            seconds = time.perf_counter() - start
            rows.append(dict(check=name, passed='yes' if passed else 'NO', result=said,
                             seconds=seconds))
            print(f'{name}: {said} ({seconds:.0f} s)', flush=True)
    report(f'What trains on {place}', rows, json_file, place, **figures)
    failed = [row['check'] for row in rows if row['passed'] == 'NO']
    if failed:
        raise MilanError(f'{len(failed)} of {len(rows)} checks failed: {", ".join(failed)}')


def _checks(place: torch.device, quick: bool, folder: Path,
            figures: dict[str, Any]) -> Iterator[tuple[str, Callable[[], str]]]:
    """Each check's name and what runs it; it gives words, or raises."""
    steps = 20 if quick else 200
    teacher, images = _teacher(folder / 'teacher'), _images(folder / 'images')
    small = ['--data-root', images, '--cfg-options', 'model.backbone.img_size=32',
             'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
             'train_dataloader.dataset.pipeline.1.size=32', 'default_hooks.logger.interval=4',
             'train_dataloader.batch_size=12']
    arch = [f'model.backbone.arch.{key}={value}' for key, value in _VIT.items()]
    taught = f'model.target_generator.pretrained={teacher}'
    (folder / 'fsdp.py').write_text(
        f"_base_ = '{RESOURCES}/configs/milan/vitl_pretrain_fsdp.py'\n"
        f'model = dict(backbone=dict(arch=dict(_delete_=True, **{_VIT}), patch_size=8))\n'
        'strategy = dict(model_wrapper=dict('
        + ('mixed_precision=None, ' if place.type == 'cpu' else '')
        + 'auto_wrap_policy=dict(min_num_params=10000)))\n')
    yield 'recorded step in float32', lambda: _parity(place)
    for dtype in _BOUNDS:
        if place.type == 'cuda' or dtype == torch.bfloat16:
            yield f'step in {dtype}'.replace('torch.', ''), partial(_half, place, teacher, dtype)
    yield 'compiled step', lambda: _compiled(place, teacher)
    yield f'{steps} steps with --amp, one process', lambda: _train(
        place, folder / 'amp', 'configs/quickstart/milan.py', steps, '--amp', *small, *arch,
        taught, 'model.neck.decoder_embed_dim=32')
    yield 'FSDP, one process', lambda: _train(
        place, folder / 'fsdp', folder / 'fsdp.py', 8, *small, taught,
        'model.target_generator.model=None', 'optim_wrapper.accumulative_counts=1')
    for name, path in (('Mask R-CNN', 'mask_rcnn/vitb_coco_lsj1024_12e_1gpu.py'),
                       ('UperNet', 'upernet/vitb_ade20k_512_160k_1gpu.py')):
        yield f'{name} step', partial(_downstream, place, path, 128 if quick else 512)
    for batch in (2, ) if quick else (64, 256):
        yield f'training step, batch {batch}', partial(_steps, place, quick, batch, figures)


def _steps(place: torch.device, quick: bool, batch: int, figures: dict[str, Any]) -> str:
    names = ('exact', 'compiled', 'bf16', 'fast', 'mmpretrain')
    rows = benchmark_step('vit-b', batch, 1 if quick else 10, str(place),
                          names[::4] if quick else names, memory=not quick)
    figures[f'step at batch {batch}'] = rows
    return '; '.join(f'{row["contender"]} {row["images/s"]:.3g} images/s' for row in rows)


def _parity(place: torch.device) -> str:
    if not _RECORDED.is_file():
        return 'left out: the recorded step is in a clone only'
    worst = max(parity_errors(_RECORDED, place).values())
    # Sums in the order of other kernels.
    bound = TOLERANCE if place.type == 'cpu' else 10 * TOLERANCE
    return _within('largest relative difference', worst, bound)


def _half(place: torch.device, teacher: Path, dtype: torch.dtype) -> str:
    model, batch = _milan(place, teacher), _batch(place)
    plain = model.loss(**batch)['loss']
    with torch.autocast(place.type, dtype):
        loss = model.loss(**batch)['loss']
    loss.backward()
    return _within("loss from float32's", ((loss - plain).abs() / plain).item(), _BOUNDS[dtype])


def _compiled(place: torch.device, teacher: Path) -> str:
    model, batch = _milan(place, teacher), _batch(place)
    gradients, losses = [], []
    for _ in range(2):
        model.zero_grad()
        losses.append(model.loss(**batch)['loss'])
        losses[-1].backward()
        gradients.append(model.neck.decoder_embed.weight.grad.clone())
        if len(losses) == 1:
            compile_loss(model)
    error = ((gradients[1] - gradients[0]).abs().max() / gradients[0].abs().max()).item()
    return _within("gradient from the plain step's", max(
        error, (losses[1] - losses[0]).abs().item()), 1e-3)


def _train(place: torch.device, work: Path, config: str | Path, steps: int, *options: Any) -> str:
    """A training of one process by tools/dist_train.sh, over NCCL on a GPU."""
    env = {**os.environ, 'PYTHON': sys.executable, 'PORT': '29677'}
    if place.type == 'cpu':
        env['CUDA_VISIBLE_DEVICES'] = ''
    done = subprocess.run(
        ['bash', str(RESOURCES / 'tools/dist_train.sh'), str(config), '1', '--work-dir', str(work),
         '--epochs', str(steps // 4), *map(str, options)], cwd=RESOURCES, env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    losses = [float(x) for x in re.findall(r' loss: (\S+)', done.stdout)]
    if done.returncode or not losses or not np.isfinite(losses).all():
        raise MilanError(f'exit code {done.returncode}: {done.stdout[-200:]}')
    kind = re.search(r'mixed precision: (\w+)', done.stdout)
    return f'loss {losses[0]:.3f} to {losses[-1]:.3f}' + (f', {kind[1]}' if kind else '')


def _downstream(place: torch.device, path: str, size: int) -> str:
    cfg = read_config(f'milan_mm::{path}')
    cfg.model.backbone.update(init_cfg=None, img_size=size)
    if 'mmdet' in cfg.model.type:
        from mmdet.registry import MODELS as TASKS
        from mmdet.testing import demo_mm_inputs
        data = demo_mm_inputs(1, [(3, size, size)], num_items=[3], with_mask=True)
        cfg.model.data_preprocessor.pop('batch_augments', None)
    else:
        from mmengine.structures import PixelData
        from mmseg.registry import MODELS as TASKS
        from mmseg.structures import SegDataSample
        labels = torch.randint(150, (1, size, size))
        sample = SegDataSample(gt_sem_seg=PixelData(data=labels))
        data = dict(inputs=[torch.randint(256, (3, size, size), dtype=torch.uint8)] * 2,
                    data_samples=[sample, sample.clone()])
        cfg.model.data_preprocessor = dict(cfg.data_preprocessor, size=(size, size))
    replace_sync_bn(cfg)  # one process
    model = TASKS.build(cfg.model)
    model = model.to(place).train()
    losses, _ = model.parse_losses(model(**model.data_preprocessor(data, True), mode='loss'))
    losses.backward()
    if not losses.isfinite():
        raise MilanError(f'the loss is {losses.item()}')
    return f'loss {losses.item():.2f}'


def _within(name: str, error: float, bound: float) -> str:
    if not error <= bound:
        raise MilanError(f'{name}: {error:.1e}, allowed {bound:.0e}')
    return f'{name}: {error:.1e}, allowed {bound:.0e}'


def _milan(place: torch.device, teacher: Path) -> nn.Module:
    torch.manual_seed(0)
    model = read_config('milan_mm::quickstart/milan.py').model
    model.backbone.update(arch=dict(_VIT), img_size=32)
    model.target_generator.pretrained = str(teacher)
    built = MODELS.build(model)
    built.init_weights()
    return built.to(place).train()


def _batch(place: torch.device) -> dict[str, torch.Tensor]:
    return dict(inputs=torch.randn(8, 3, 32, 32, device=place),
                sample_keys=torch.arange(8, device=place))


def _teacher(folder: Path) -> Path:
    folder.mkdir()
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**_CLIP).state_dict(), folder / 'open_clip_model.safetensors')
    (folder / 'open_clip_config.json').write_text(json.dumps(dict(model_cfg=_CLIP)))
    return folder


def _images(folder: Path) -> Path:
    folder.mkdir()
    for i in range(48):
        pixels = np.random.default_rng(i).integers(0, 255, (6, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((70, 60), 0).save(folder / f'{i}.png')
    return folder
