# SPDX-License-Identifier: Apache-2.0
"""The prompting decoder: the encoder's tokens stay as they are, mask tokens ask them."""

import torch
from mmengine.model import BaseModule
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F

from ..compat.cpu_attention import attention
from ..compat.float32_products import use_linear
from ..positions import sincos_positions
from ..registry import MODELS
from ..structures import MaskIds, gather_tokens, pair
from .encoder import check_heads, init_transformer


@MODELS.register_module()
class PromptingDecoder(BaseModule):
    """Predicts the target of every token from the visible ones (MILAN Sec. 3.3).

    The encoder's tokens, mapped to the decoder's width, are *prompts*: no block changes or
    normalises them, they only serve as keys and values. Mask tokens are the only queries.
    :class:`milan_mm.MILAN` fills in the first three arguments from the encoder and the teacher.

    Args:
        embed_dim: D, width of the encoder.
        grid_size: rows and columns of patches; N is their product.
        predict_feature_dim: T, width of the target.
        decoder_embed_dim: E.
        decoder_depth: number of blocks.
        decoder_num_heads: heads of each block's attention.
        mlp_ratio: hidden width of a block's MLP, in units of E.
        init_cfg: see ``BaseModule``.
    """

    def __init__(self,
                 embed_dim: int,
                 grid_size: tuple[int, int],
                 predict_feature_dim: int,
                 decoder_embed_dim: int = 512,
                 decoder_depth: int = 8,
                 decoder_num_heads: int = 16,
                 mlp_ratio: float = 4.,
                 init_cfg: dict | None = None) -> None:
        check_heads(decoder_embed_dim, decoder_num_heads)
        super().__init__(init_cfg)
        self.grid_size = self.seen_grid = pair(grid_size)
        self.decoder_embed = nn.Linear(embed_dim, decoder_embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
        self.register_buffer('decoder_pos_embed', sincos_positions(decoder_embed_dim, grid_size))
        self.decoder_blocks = nn.ModuleList(
            PromptingBlock(decoder_embed_dim, decoder_num_heads, mlp_ratio)
            for _ in range(decoder_depth))
        self.decoder_norm = nn.LayerNorm(decoder_embed_dim, eps=1e-6)
        self.decoder_pred = nn.Linear(decoder_embed_dim, predict_feature_dim)
        use_linear(self)

    def init_weights(self) -> None:
        super().init_weights()
        if self.init_cfg:
            return
        self.apply(init_transformer)
        nn.init.normal_(self.mask_token, std=.02)

    def set_grid(self, grid_size: tuple[int, int]) -> None:
        """Prepares for images of so many rows and columns of patches."""
        self.seen_grid = pair(grid_size)

    def forward(self, latent: Tensor, masks: MaskIds) -> Tensor:
        """Decodes.

        Order inside attention does not matter, so nothing is un-shuffled: the positions are
        gathered by index instead.

        Args:
            latent: (B, 1 + V, D) from the encoder, CLS first.
            masks: the patches ``latent`` is of.

        Returns:
            (B, 1 + N, T) predictions in the order CLS, visible, masked.
        """
        positions = resize_pos_embed(self.decoder_pos_embed, self.grid_size, self.seen_grid)
        patch_positions = positions[:, 1:].expand(latent.shape[0], -1, -1)
        prompts = self.decoder_embed(latent)
        prompts = prompts + torch.cat([
            positions[:, :1].expand(latent.shape[0], -1, -1),
            gather_tokens(patch_positions, masks.visible)], dim=1)
        tokens = self.mask_token + gather_tokens(patch_positions, masks.masked)
        for block in self.decoder_blocks:
            tokens = block(tokens, prompts)
        return self.decoder_pred(self.decoder_norm(torch.cat([prompts, tokens], dim=1)))


class PromptingBlock(nn.Module):
    """One block: mask tokens attend to prompts and to each other, then an MLP (Fig. 3)."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = PromptingAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, tokens: Tensor, prompts: Tensor) -> Tensor:
        """tokens (B, M, E) and prompts (B, 1 + V, E) give tokens (B, M, E)."""
        query = self.norm1(tokens)
        tokens = tokens + self.attn(query, torch.cat([prompts, query], dim=1))
        return tokens + self.mlp(self.norm2(tokens))


class PromptingAttention(nn.Module):
    """Multi-head attention with queries of one set of tokens, keys and values of another."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, query: Tensor, context: Tensor) -> Tensor:
        """query (B, M, E) and context (B, L, E) give (B, M, E)."""
        heads = (self.num_heads, query.shape[-1] // self.num_heads)
        q = self.q(query).unflatten(-1, heads).transpose(1, 2)
        k, v = self.kv(context).unflatten(-1, (2, *heads)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))
