# SPDX-License-Identifier: Apache-2.0
"""Who takes part in the benchmark of a training step, each as its own config has it."""
import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from mmpretrain.registry import MODELS as MMPRETRAIN
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...architectures import ARCHITECTURES
from ...config.read import read_config
from ...engine.train import compile_loss
from ...registry import MODELS

_TEACHER = 'ViT-B-16-quickgelu'
LETTERS = {'vit-b': 'b', 'vit-l': 'l', 'vit-h': 'h'}  # mmpretrain's names of the same sizes


class Contender(NamedTuple):
    """One line of the table.

    Attributes:
        label: what it is.
        build: its model from an architecture and changes of its config.
        dtype: of the matrix products.
        plain: the contender that this is, compiled by torch.compile; None if it is not compiled.
        fused: whether AdamW is, as this package's configs have it; mmpretrain's have not.
    """
    label: str
    build: Callable[..., nn.Module]
    dtype: torch.dtype = torch.float32
    plain: str | None = None
    fused: bool = True


def _of_config(path: str) -> Callable[..., nn.Module]:
    def build(arch: str, mask_ratio: float = 0.75, img_size: int = 224) -> nn.Module:
        model = read_config(f'milan_mm::{path}').model
        model.backbone.update(arch=arch, img_size=img_size)
        model.mask_generator.mask_ratio = mask_ratio
        if 'pretrained' in model.target_generator:
            model.target_generator.pretrained = None  # random weights take as long
        return MODELS.build(model)
    return build


def _mmpretrain_milan(arch: str) -> nn.Module:
    """mmpretrain's own, with the decoder's input width corrected (it is 1024 as shipped)."""
    with tempfile.TemporaryDirectory() as folder:
        teacher = Path(folder) / 'clip.pth'
        torch.save(open_clip.create_model(_TEACHER).state_dict(), teacher)
        model = MMPRETRAIN.build(dict(
            type='mmpretrain.MILAN',
            backbone=dict(
                type='mmpretrain.MILANViT', arch=LETTERS[arch], patch_size=16, mask_ratio=0.75),
            neck=dict(type='mmpretrain.MILANPretrainDecoder',
                      embed_dim=ARCHITECTURES[arch]['embed_dims']),
            head=dict(type='mmpretrain.MIMHead', loss=dict(
                type='mmpretrain.CosineSimilarityLoss', shift_factor=2.0, scale_factor=2.0)),
            target_generator=dict(type='mmpretrain.CLIPGenerator', tokenizer_path=str(teacher))))
    # As shipped they are trained parameters without gradient.
    model.target_generator.requires_grad_(False)
    return model


def _mmpretrain_mae(arch: str) -> nn.Module:
    return MMPRETRAIN.build(dict(
        type='mmpretrain.MAE',
        backbone=dict(type='mmpretrain.MAEViT', arch=LETTERS[arch], patch_size=16, mask_ratio=0.75),
        neck=dict(type='mmpretrain.MAEPretrainDecoder', patch_size=16, in_chans=3,
                  embed_dim=ARCHITECTURES[arch]['embed_dims'], decoder_embed_dim=512,
                  decoder_depth=8, decoder_num_heads=16),
        head=dict(type='mmpretrain.MAEPretrainHead', norm_pix=True, patch_size=16, loss=dict(
            type='mmpretrain.PixelReconstructionLoss', criterion='L2'))))


_milan, _mae, _fast = map(_of_config, ('milan/vitb_pretrain.py', 'mae/vitb_pretrain.py',
                                       'milan/vitb_pretrain_fast.py'))
CONTENDERS = {
    'exact': Contender('MILAN', _milan),
    'compiled': Contender('MILAN, --compile', _milan, plain='exact'),
    'bf16': Contender('MILAN, --amp', _milan, torch.bfloat16),
    'bf16-compiled': Contender('MILAN, --amp --compile', _milan, torch.bfloat16,
                               plain='bf16'),
    'fast': Contender('MILAN, vitb_pretrain_fast.py', _fast, torch.bfloat16),
    'mae': Contender('MAE', _mae),
    'mmpretrain': Contender("mmpretrain's MILAN", _mmpretrain_milan, fused=False),
    'mmpretrain-mae': Contender("mmpretrain's MAE", _mmpretrain_mae, fused=False),
}


class Step:
    """Training steps of a contender on the same random pixels; each call gives its seconds.

    Args:
        name: of :data:`CONTENDERS`.
        arch: of its student.
        batch_size: images in a step.
        device: where to compute.
        clock: 'wall' or 'cpu', see :func:`milan_mm.lab.benchmark.step.benchmark`.
        **changes: of its config, such as ``mask_ratio``.

    Attributes:
        views: masks of an image in a step.
        shares: seconds of the last step by part; empty for one that is compiled, without the
            teacher for one that is not of this package.
    """

    def __init__(self, name: str, arch: str, batch_size: int, device: torch.device,
                 clock: str = 'wall', **changes: Any) -> None:
        self.contender = CONTENDERS[name]
        self.clock = time.process_time if clock == 'cpu' else time.perf_counter
        self.model = self.contender.build(arch, **changes).to(device).train()
        size = changes.get('img_size', 224)
        self.pixels = torch.randn(batch_size, 3, size, size, device=device)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.millions = sum(p.numel() for p in trained) / 1e6
        self.optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=self.contender.fused or None)
        self.views = getattr(getattr(self.model, 'mask_generator', None), 'views', 1)
        self.shares: dict[str, float] = {}
        if self.contender.plain:
            compile_loss(self.model)
        self._forward: Callable[..., dict[str, Tensor]] = self.model.loss
        if not self.contender.plain and hasattr(self.model, 'mask_generator'):
            self._watch()

    def __call__(self) -> float:
        self.shares = {}
        start = self.last = self._now()
        self.optimizer.zero_grad(set_to_none=True)
        with self._precision():
            loss = self._loss()
        loss.backward()
        self._mark('encoder')
        self.optimizer.step()
        self._mark('optimizer')
        return self._now() - start

    def average_gradients(self) -> None:
        """From now on, over all processes of the group, as a training does."""
        place = [self.pixels.device] if self.pixels.is_cuda else None
        parallel = DistributedDataParallel(self.model, place, broadcast_buffers=False)
        self._forward = lambda *inputs: parallel(*inputs, mode='loss')

    def _loss(self) -> Tensor:
        return self._forward(self.pixels, [])['loss']

    def _precision(self) -> contextlib.AbstractContextManager:
        if self.contender.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.pixels.device.type, self.contender.dtype)

    def _now(self) -> float:
        if self.pixels.is_cuda:
            torch.cuda.synchronize()
        return self.clock()

    def _mark(self, part: str) -> None:
        """What has passed since the last mark was this part's."""
        if self.contender.plain:
            return
        now = self._now()
        self.shares[part] = self.shares.get(part, 0.) + now - self.last
        self.last = now

    def _watch(self) -> None:
        """Marks where a part ends, forward and backward."""
        def encoded(module: nn.Module, inputs: Any, latent: Tensor) -> None:
            self._mark('encoder')
            if latent.requires_grad:
                latent.register_hook(lambda grad: self._mark('decoder'))

        self.model.target_generator.register_forward_hook(lambda *_: self._mark('teacher'))
        self.model.backbone.register_forward_hook(encoded)
        self.model.neck.register_forward_hook(lambda *_: self._mark('decoder'))
