# SPDX-License-Identifier: Apache-2.0
"""timm's plain ViTs and EVAs, asked for every token and for importance.

The library's own modules compute the features; only the attention row of the last block, which a
fused kernel does not give, is computed beside them.
"""
from collections.abc import Callable, Sequence

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import Attention, AttentionRope, apply_rot_embed_cat
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import MilanError
from ...structures import pair
from .tower import Tower, cls_importance

_NORM_FIRST = (Block, EvaBlock)
_NORM_LAST = (ResPostBlock, EvaBlockPostNorm)
_ATTENTIONS = (Attention, AttentionRope, EvaAttention)


class TimmTower(Tower):
    """A ``VisionTransformer`` or ``Eva`` of timm.

    What stands for the image as a whole is what the model pools, and the importance of a patch
    is the weight it has in that:

    * pooled by its CLS token: the attention of CLS in the last block, over CLS, registers and
      patches, of which the patches' part is given;
    * pooled by attention (SigLIP, PE): the attention of the pooling query;
    * pooled by the mean: the mean over the patches' rows of the last block's attention. A mean of
      tokens takes from a patch the mean of what its tokens take. A CLS token that such a model has
      beside, no loss ever asked for anything.

    Features are the tokens after the final norm, behind whatever head the model has, the pooled
    one first; registers are left out.

    Args:
        trunk: with its weights.
        name: what to call it in an error.
        head: what comes behind the trunk, such as a projection into CLIP's space.
        mean, std: pixel statistics it was trained with, in 0..1; None for what timm says of it.

    Raises:
        MilanError: if it is no such ViT.
    """

    def __init__(self, trunk: nn.Module, name: str, head: nn.Module | None = None,
                 mean: Sequence[float] | None = None,
                 std: Sequence[float] | None = None) -> None:
        super().__init__()
        self.pooling = pooling_of(trunk, name)
        self.trunk, self.head = trunk.eval(), head or nn.Identity()
        config = getattr(trunk, 'pretrained_cfg', None) or {}
        self.mean = tuple(mean or config.get('mean') or IMAGENET_DEFAULT_MEAN)
        self.std = tuple(std or config.get('std') or IMAGENET_DEFAULT_STD)
        self.patch_size = trunk.patch_embed.patch_size[0]
        self.grid_size = tuple(trunk.patch_embed.grid_size)
        with torch.no_grad():
            self.dim = self._project(torch.zeros(1, 1, trunk.num_features)).shape[-1]

    def set_grid(self, grid_size: tuple[int, int]) -> None:
        if tuple(grid_size) != self.grid_size and self._pool_positions() is not None:
            raise MilanError('this tower\'s pooling has learned positions of its own, which are '
                             f'for a grid of {self.grid_size}, and the student\'s is '
                             f'{tuple(grid_size)}; use another teacher, or images of that grid')
        positions, old = self.at_first(self.trunk.pos_embed)
        if old != self.grid_size:  # timm resizes what is there
            self.trunk.set_input_size(img_size=self.input_size(old))
            if positions is not None:
                self.trunk.pos_embed = nn.Parameter(positions, requires_grad=False)
        self.trunk.set_input_size(img_size=self.input_size(grid_size))
        self.grid_size = pair(grid_size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (B, 3, H, W) give features (B, 1 + N, T) and importance (B, N)."""
        tokens, row = self.tokens_and_row(images)
        prefix = self.trunk.num_prefix_tokens
        first = tokens[:, :1] if self.pooling == 'cls' else self.trunk.pool(tokens).unsqueeze(1)
        features = self._project(torch.cat([first, tokens[:, prefix:]], dim=1))
        return features, row[:, row.shape[1] - (tokens.shape[1] - prefix):]

    def tokens_and_row(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """All tokens after the final norm (B, L, width), and the whole attention row.

        Returns:
            The tokens, and the float32 weights (B, L), or (B, N) of a pool that leaves CLS and
            registers out. Each row sums to 1.
        """
        trunk = self.trunk
        if self.pooling == 'attention':
            tokens = trunk.forward_features(images)
            inside = isinstance(trunk, Eva) or getattr(trunk, 'pool_include_prefix', False)
            pooled = tokens if inside else tokens[:, trunk.num_prefix_tokens:]
            return tokens, pool_row(trunk.attn_pool, pooled)
        prefix = trunk.num_prefix_tokens
        before = len(trunk.blocks) - 2
        tokens, between = trunk.forward_intermediates(
            images, indices=[before], return_prefix_tokens=prefix > 0, output_fmt='NLC')
        x = torch.cat([between[0][1], between[0][0]], dim=1) if prefix else between[0]
        last = trunk.blocks[-1]
        if isinstance(last, _NORM_FIRST):
            x = last.norm1(x)
        if self.pooling == 'cls':
            query, keys = query_and_keys(last.attn, x, self._rotations(), only_first=True)
            return tokens, cls_importance(query, keys)
        query, keys = query_and_keys(last.attn, x, self._rotations())
        inside = getattr(trunk, 'pool_include_prefix', False)
        return tokens, mean_importance(query if inside else query[:, :, prefix:], keys)

    def _project(self, tokens: Tensor) -> Tensor:
        return self.head(self.trunk.head(self.trunk.fc_norm(tokens)))

    def _pool_positions(self) -> Tensor | None:
        return getattr(getattr(self.trunk, 'attn_pool', None), 'pos_embed', None)

    def _rotations(self) -> Tensor | None:
        """Rotary positions of the last block, if the model has such."""
        rope = getattr(self.trunk, 'rope', None)
        if rope is None:
            return None
        known = hasattr(rope, 'feat_shape') and not self.trunk.dynamic_img_size
        angles = rope.get_embed() if known else rope.get_embed(shape=self.grid_size)
        return angles[-1] if getattr(self.trunk, 'rope_mixed', False) else angles


def pooling_of(trunk: nn.Module, name: str) -> str:
    """'cls', 'attention' or 'mean'.

    Raises:
        MilanError: if the trunk is no ViT of a kind whose importance is known.
    """
    block = trunk.blocks[-1] if getattr(trunk, 'blocks', None) else None
    plain = isinstance(trunk, (VisionTransformer, Eva)) and hasattr(trunk, 'set_input_size')
    if not plain or len(set(trunk.patch_embed.patch_size)) > 1:
        raise MilanError(f'{name} is a {type(trunk).__name__}, and a teacher must be a plain ViT '
                         'or EVA with square patches (VisionTransformer or Eva of timm), such as '
                         'vit_base_patch16_224.dino or vit_base_patch14_reg4_dinov2')
    pool = getattr(trunk, 'attn_pool', None)
    if pool is not None and all(hasattr(pool, part) for part in ('latent', 'q', 'kv')):
        return 'attention'
    if (not isinstance(block, _NORM_FIRST + _NORM_LAST) or type(block.attn) not in _ATTENTIONS
            or len(trunk.blocks) < 2):
        raise MilanError(f'{name}: its last block is a {type(block).__name__} with '
                         f'{type(getattr(block, "attn", None)).__name__}, whose attention is not '
                         'known here. Use a ViT of two or more plain blocks')
    kind = trunk.global_pool if pool is None else type(pool).__name__
    if trunk.cls_token is not None and kind in ('token', ''):
        return 'cls'
    if kind in ('avg', ''):
        return 'mean'
    raise MilanError(f'{name} pools its tokens by {kind!r}, which gives patches no weight; '
                     "expected 'token', 'avg' or 'map'")


def query_and_keys(attn: nn.Module, x: Tensor, rotations: Tensor | None,
                   only_first: bool = False) -> tuple[Tensor, Tensor]:
    """What an attention of timm compares.

    Args:
        attn: one of timm's ``Attention``, ``AttentionRope``, ``EvaAttention``.
        x: (B, L, width) its input.
        rotations: rotary positions of the patches, or None.
        only_first: whether the query of the first token is enough.

    Returns:
        Queries (B, heads, L or 1, head width) and keys (B, heads, L, head width).
    """
    asking = x[:, :1] if only_first else x
    to_query, to_keys = _projections(attn)
    key_heads = getattr(attn, 'num_kv_heads', attn.num_heads)
    query = to_query(asking).unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
    keys = to_keys(x).unflatten(-1, (key_heads, -1)).transpose(1, 2)
    query, keys = attn.q_norm(query), attn.k_norm(keys)
    if rotations is not None:
        keys = _rotate(attn, keys, rotations)
        query = query if only_first else _rotate(attn, query, rotations)
    groups = attn.num_heads // key_heads
    return query, keys.repeat_interleave(groups, dim=1) if groups > 1 else keys


def _projections(attn: nn.Module) -> tuple[Callable, Callable]:
    if attn.qkv is None:
        return attn.q_proj, attn.k_proj
    weights, bias = attn.qkv.weight.chunk(3), attn.qkv.bias
    if getattr(attn, 'q_bias', None) is not None:  # EVA's keys have none that is learned
        biases = (attn.q_bias, attn.k_bias)
    else:
        biases = (None, None) if bias is None else bias.chunk(3)
    query, keys = zip(weights[:2], biases[:2])
    return lambda x: F.linear(x, *query), lambda x: F.linear(x, *keys)


def _rotate(attn: nn.Module, x: Tensor, rotations: Tensor) -> Tensor:
    prefix = attn.num_prefix_tokens
    turned = apply_rot_embed_cat(x[:, :, prefix:], rotations,
                                 half=getattr(attn, 'rotate_half', False))
    return torch.cat([x[:, :, :prefix], turned.type_as(x)], dim=2)


def mean_importance(query: Tensor, keys: Tensor) -> Tensor:
    """The attention that tokens get on the mean of all rows and heads.

    Args:
        query: (B, heads, Q, head width).
        keys: (B, heads, L, head width).

    Returns:
        (B, L) float32; each row sums to 1.
    """
    with torch.autocast(query.device.type, enabled=False):
        scores = query.float() @ keys.float().transpose(-2, -1) / query.shape[-1]**.5
        return scores.softmax(dim=-1).mean(dim=(1, 2))


def pool_row(pool: nn.Module, tokens: Tensor) -> Tensor:
    """Attention of a pooling query (timm's ``AttentionPoolLatent``) to the tokens (B, L, width).

    Returns:
        (B, L) float32; each row sums to 1.
    """
    if getattr(pool, 'pos_embed', None) is not None:
        tokens = tokens + pool.pos_embed[None].to(tokens.dtype)
    heads = (pool.num_heads, -1)
    query = pool.q_norm(pool.q(pool.latent).unflatten(-1, heads).transpose(1, 2))
    keys, _ = pool.kv(tokens).chunk(2, dim=-1)
    keys = pool.k_norm(keys.unflatten(-1, heads).transpose(1, 2))
    return cls_importance(query[:, :, :1], keys)
