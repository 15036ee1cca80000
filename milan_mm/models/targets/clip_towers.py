# SPDX-License-Identifier: Apache-2.0
"""``open_clip``'s image towers, asked for every token and for importance.

Both classes hold the library's own modules and call them; none re-implements a block.
"""
import math
from typing import Sequence, Tuple

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import MilanError


def wrap_tower(visual: nn.Module, name: str) -> 'ClipTower':
    """Picks the class for a tower of ``open_clip``.

    Raises:
        MilanError: if it is not a ViT with a CLS token or with an attention pool.
    """
    if hasattr(visual, 'class_embedding') and hasattr(visual, 'transformer'):
        return ClsTower(visual, name)
    trunk = getattr(visual, 'trunk', None)
    pool = getattr(trunk, 'attn_pool', None)
    if all(hasattr(pool, part) for part in ('latent', 'q', 'kv', 'num_heads')):
        return AttentionPooledTower(visual, name)
    raise MilanError(
        f'{name}: the image tower is a {type(trunk or visual).__name__}, which has neither a CLS '
        'token in a ViT of open_clip nor an attention pool, so it gives no importance of '
        'patches. Use a ViT tower such as ViT-B-16-quickgelu or ViT-B-16-SigLIP')


class ClipTower(nn.Module):
    """Base: what a teacher must know of its tower.

    Attributes:
        dim: T.
        patch_size: side of a patch in pixels.
        grid_size: rows and columns of patches the positions are for.
        mean, std: of the pixels the tower was trained on, in 0..1.
    """
    mean: Sequence[float]
    std: Sequence[float]

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        config = getattr(visual, 'preprocess_cfg', None) or {}
        self.mean = tuple(config.get('mean') or OPENAI_DATASET_MEAN)
        self.std = tuple(config.get('std') or OPENAI_DATASET_STD)

    def input_size(self, grid_size: Tuple[int, int]) -> Tuple[int, int]:
        """Height and width in pixels of a picture that has this grid."""
        return grid_size[0] * self.patch_size, grid_size[1] * self.patch_size

    def set_grid(self, grid_size: Tuple[int, int]) -> None:
        """Interpolates the positions for another grid."""
        raise NotImplementedError


class ClsTower(ClipTower):
    """A ViT of ``open_clip`` with a CLS token: OpenAI's and LAION's towers."""

    def __init__(self, visual: nn.Module, name: str) -> None:
        super().__init__(visual)
        last = visual.transformer.resblocks[-1]
        standard = isinstance(getattr(last, 'attn', None), nn.MultiheadAttention)
        if not standard or visual.pool_type != 'tok' or visual.attn_pool is not None:
            raise MilanError(f'{name}: this tower does not end in standard attention with a '
                             'pooled CLS token, so the attention of CLS is not its measure of '
                             'importance. Use a tower such as ViT-B-16-quickgelu')
        # Looked up here so that a torch.compile graph meets constants.
        self.patch_size = visual.patch_size[0]
        self.grid_size = tuple(visual.grid_size)
        self.dim = len(visual.ln_post.weight) if visual.proj is None else visual.proj.shape[1]

    def set_grid(self, grid_size: Tuple[int, int]) -> None:
        positions = self.visual.positional_embedding
        self.visual.positional_embedding = nn.Parameter(
            resize_positions(positions.detach(), self.grid_size, grid_size), requires_grad=False)
        self.grid_size = self.visual.grid_size = tuple(grid_size)

    def forward(self, images: Tensor) -> Tuple[Tensor, Tensor]:
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
        return (x if visual.proj is None else x @ visual.proj), importance

    def importance(self, block: nn.Module, x: Tensor) -> Tensor:
        """Attention of CLS to the patches in ``block``, given its input (B, 1 + N, width)."""
        attn = block.attn
        x = block.ln_1(x)
        (wq, wk, _), (bq, bk, _) = attn.in_proj_weight.chunk(3), attn.in_proj_bias.chunk(3)
        heads = (attn.num_heads, attn.head_dim)
        query = F.linear(x[:, :1], wq, bq).unflatten(-1, heads).transpose(1, 2)
        keys = F.linear(x, wk, bk).unflatten(-1, heads).transpose(1, 2)
        return cls_importance(query, keys)[:, 1:]


class AttentionPooledTower(ClipTower):
    """A timm ViT without CLS, pooled by attention: SigLIP's towers.

    The pooling query plays the part of CLS: its output is the first token, its attention the
    importance. The patches' features are the normalised tokens it pools.
    """

    def __init__(self, visual: nn.Module, name: str) -> None:
        super().__init__(visual)
        trunk = visual.trunk
        if getattr(trunk, 'num_prefix_tokens', 0) or not hasattr(trunk, 'set_input_size'):
            raise MilanError(f'{name}: an attention-pooled tower with extra tokens or a fixed '
                             'input size is not supported; use a SigLIP ViT')
        self.patch_size = trunk.patch_embed.patch_size[0]
        self.grid_size = tuple(trunk.patch_embed.grid_size)
        with torch.no_grad():
            self.dim = visual.eval().head(torch.zeros(1, trunk.num_features)).shape[1]

    def set_grid(self, grid_size: Tuple[int, int]) -> None:
        self.visual.trunk.set_input_size(img_size=self.input_size(grid_size))
        self.grid_size = tuple(grid_size)

    def forward(self, images: Tensor) -> Tuple[Tensor, Tensor]:
        """images (B, 3, H, W) give features (B, 1 + N, T) and importance (B, N)."""
        trunk = self.visual.trunk
        tokens = trunk.forward_features(images)
        pooled = trunk.forward_head(tokens)[:, None]
        features = self.visual.head(torch.cat([pooled, tokens], dim=1))
        return features, self.importance(trunk.attn_pool, tokens)

    def importance(self, pool: nn.Module, tokens: Tensor) -> Tensor:
        """Attention of the pooling query to the tokens (B, N, width)."""
        if getattr(pool, 'pos_embed', None) is not None:
            tokens = tokens + pool.pos_embed[None].to(tokens.dtype)
        heads = (pool.num_heads, -1)
        query = pool.q_norm(pool.q(pool.latent).unflatten(-1, heads).transpose(1, 2))
        keys, _ = pool.kv(tokens).chunk(2, dim=-1)
        keys = pool.k_norm(keys.unflatten(-1, heads).transpose(1, 2))
        return cls_importance(query[:, :, :1], keys)


def resize_positions(positions: Tensor, old: Tuple[int, int], new: Tuple[int, int]) -> Tensor:
    """Bicubic interpolation of learned positions (1 + N, width), CLS first."""
    if tuple(old) == tuple(new):
        return positions
    cls, grid = positions[:1], positions[1:]
    grid = grid.T.reshape(1, -1, *old).float()
    grid = F.interpolate(grid, tuple(new), mode='bicubic', align_corners=False, antialias=True)
    grid = grid.reshape(positions.shape[1], math.prod(new)).T.to(positions.dtype)
    return torch.cat([cls, grid])


def cls_importance(query: Tensor, keys: Tensor) -> Tensor:
    """The attention of one query over all tokens, the only row that is ever needed.

    Args:
        query: (B or 1, heads, 1, head width).
        keys: (B, heads, L, head width).

    Returns:
        (B, L) float32: softmax over the L tokens, averaged over heads.
    """
    with torch.autocast(query.device.type, enabled=False):
        scores = query.float() @ keys.float().transpose(-2, -1) / math.sqrt(query.shape[-1])
        return scores.softmax(dim=-1).mean(dim=1).squeeze(1)
