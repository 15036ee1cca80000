# SPDX-License-Identifier: Apache-2.0
"""``open_clip``'s image towers, asked for every token and for importance.

The library's own modules hold the weights; a block's two halves are run here.
"""
import math
from collections.abc import Sequence

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from ...compat.float32_products import applies, linear
from ...errors import MilanError
from .timm_towers import TimmTower
from .tower import Tower, cls_importance


def wrap_tower(visual: nn.Module, name: str) -> Tower:
    """Picks the class for a tower of ``open_clip``.

    Raises:
        MilanError: if it is not a ViT whose measure of importance is known.
    """
    if hasattr(visual, 'class_embedding') and hasattr(visual, 'transformer'):
        return ClsTower(visual, name)
    if hasattr(visual, 'trunk'):  # EVA, SigLIP, PE
        mean, std = pixels_of(visual)
        return TimmTower(visual.trunk, name, visual.head, mean, std)
    raise MilanError(f'{name}: the image tower is a {type(visual).__name__}, which has neither a '
                     'CLS token in a ViT of open_clip nor a ViT of timm inside, so it gives no '
                     'importance of patches. Use a tower such as ViT-B-16-quickgelu, '
                     'ViT-B-16-SigLIP or EVA02-B-16')


def pixels_of(visual: nn.Module) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation, in 0..1, of what a tower was trained on."""
    config = getattr(visual, 'preprocess_cfg', None) or {}
    return (tuple(config.get('mean') or OPENAI_DATASET_MEAN),
            tuple(config.get('std') or OPENAI_DATASET_STD))


class ClsTower(Tower):
    """A ViT of ``open_clip`` with a CLS token: OpenAI's and LAION's towers."""

    def __init__(self, visual: nn.Module, name: str) -> None:
        super().__init__()
        self.visual = visual
        self.mean, self.std = pixels_of(visual)
        last = visual.transformer.resblocks[-1]
        standard = isinstance(getattr(last, 'attn', None), nn.MultiheadAttention)
        if not standard or visual.pool_type != 'tok' or visual.attn_pool is not None:
            raise MilanError(f'{name}: this tower does not end in standard attention with a '
                             'pooled CLS token, so the attention of CLS is not its measure of '
                             'importance. Use a tower such as ViT-B-16-quickgelu')
        for block in visual.transformer.resblocks:
            if type(block) is ResidualAttentionBlock and block.attn.batch_first:
                block.__class__ = FusedBlock  # the same parameters
        # Looked up here so that a torch.compile graph meets constants.
        self.patch_size = visual.patch_size[0]
        self.grid_size = tuple(visual.grid_size)
        self.dim = len(visual.ln_post.weight) if visual.proj is None else visual.proj.shape[1]

    def set_grid(self, grid_size: tuple[int, int]) -> None:
        positions, old = self.at_first(self.visual.positional_embedding)
        self.visual.positional_embedding = nn.Parameter(
            resize_positions(positions, old, grid_size), requires_grad=False)
        self.grid_size = self.visual.grid_size = tuple(grid_size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (B, 3, H, W) give features (B, 1 + N, T) and importance (B, N)."""
        visual = self.visual
        x = visual.conv1(images).flatten(2).transpose(1, 2)
        cls = visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([cls, x], dim=1) + visual.positional_embedding.to(x.dtype)
        x = visual.ln_pre(x)
        *blocks, last = visual.transformer.resblocks
        for block in blocks:
            x = block(x)
        importance = self.importance(last, x)
        x = visual.ln_post(last(x))
        return (x if visual.proj is None else linear(x, visual.proj.t())), importance

    def importance(self, block: nn.Module, x: Tensor) -> Tensor:
        """Attention of CLS to the patches in ``block``, given its input (B, 1 + N, width)."""
        attn = block.attn
        x = block.ln_1(x)
        (wq, wk, _), (bq, bk, _) = attn.in_proj_weight.chunk(3), attn.in_proj_bias.chunk(3)
        heads = (attn.num_heads, attn.head_dim)
        query = linear(x[:, :1], wq, bq).unflatten(-1, heads).transpose(1, 2)
        keys = linear(x, wk, bk).unflatten(-1, heads).transpose(1, 2)
        return cls_importance(query, keys)[:, 1:]


class FusedBlock(ResidualAttentionBlock):
    """The same block with torch's fused attention.

    Called without gradients, ``nn.MultiheadAttention`` writes the N x N weights out, torch 2.5
    cannot compile it, and 2.14 compiles it to a product an order slower.
    """

    def forward(self, x: Tensor, *context: Tensor | None,
                attn_mask: Tensor | None = None) -> Tensor:
        """(B, 1 + N, width), CLS first, to the same; what else a block takes goes to its own."""
        if context or attn_mask is not None:
            return super().forward(x, *context, attn_mask=attn_mask)
        attn = self.attn
        qkv = linear(self.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.ls_1(linear(mixed, attn.out_proj.weight, attn.out_proj.bias))
        return x + self.ls_2(run_mlp(self.mlp, self.ln_2(x)))


def run_mlp(mlp: nn.Sequential, x: Tensor) -> Tensor:
    """``c_proj(gelu(c_fc(x)))``; the quick GELU, x sigmoid(1.702 x), in one pass instead of three.

    It is silu(1.702 x) / 1.702, and both factors go into the matrix products.
    """
    fc, proj = mlp.c_fc, mlp.c_proj
    if torch.is_grad_enabled():
        return mlp(x)
    if not isinstance(mlp.gelu, QuickGELU):
        return linear(mlp.gelu(linear(x, fc.weight, fc.bias)), proj.weight, proj.bias)
    scale, rows = 1.702, x.flatten(0, -2)
    if applies(x):
        hidden = F.silu(linear(x, fc.weight, fc.bias).mul_(scale), inplace=True)
        return torch.add(proj.bias, linear(hidden, proj.weight), alpha=1 / scale)
    hidden = torch.addmm(fc.bias, rows, fc.weight.t(), beta=scale, alpha=scale)
    hidden = F.silu(hidden, inplace=True)
    out = torch.addmm(proj.bias, hidden, proj.weight.t(), alpha=1 / scale)
    return out.view_as(x)


def resize_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Bicubic interpolation of learned positions (1 + N, width), CLS first."""
    if tuple(old) == tuple(new):
        return positions
    cls, grid = positions[:1], positions[1:]
    grid = grid.T.reshape(1, -1, *old).float()
    grid = F.interpolate(grid, tuple(new), mode='bicubic', align_corners=False, antialias=True)
    grid = grid.reshape(positions.shape[1], math.prod(new)).T.to(positions.dtype)
    return torch.cat([cls, grid])
