# SPDX-License-Identifier: Apache-2.0
"""The backbone for detection: a ViT of windows with a few global blocks."""
from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from ..compat.drop_path import make_drop_path_traceable
from ..compat.ffn_forward import make_ffn_traceable
from ..errors import MilanError
from ..positions import sincos_positions
from ..registry import MODELS
from .encoder import check_tiling, init_transformer, look_up
from .finetuning import FinetunedInPart, check_frozen
from .lean_mlp import make_mlp_lean
from .pretrained import StartsPretrained
from .rotary import RotaryPositions
from .window_attention import WindowAttention


@MODELS.register_module()
class WindowedVisionTransformer(StartsPretrained, FinetunedInPart, VisionTransformer):
    """ViTDet's backbone (arXiv 2203.16527): patch tokens only, windows, relative positions.

    Its tensors bear the names of mmpretrain's ``VisionTransformer``, so a pretrained encoder is
    taken over by ``init_cfg=dict(type='milan_mm.PretrainedViT', checkpoint=...)``; what the
    encoder cannot have, the relative positions, starts at zero.

    Any image size will do: sides that are no multiples of the patch are padded with zeros at
    the right and below, learned positions are resized (bicubic), and windows at the edges are
    smaller where they do not tile the map.

    Args:
        arch: 'vit-s', 'vit-b', 'vit-l', 'vit-h', or a dict with ``embed_dims``, ``num_layers``,
            ``num_heads`` and ``feedforward_channels``.
        img_size: height and width in pixels that positions are stored for, or one number.
        patch_size: side of a patch in pixels.
        window_size: side of a window in patches.
        global_indices: blocks that attend to the whole map, from 0; None for the last block of
            each quarter (2, 5, 8, 11 of 12).
        drop_path_rate: rate of the last block; the others' rise to it from 0.
        final_norm: whether a LayerNorm follows the last block.
        with_cp: keep the input of each block only and compute the block again in the backward
            pass: far less memory, about a third more time.
        rotary, lora: see :class:`MaskedVisionTransformer`.
        **kwargs: arguments of ``VisionTransformer``.

    Raises:
        MilanError: if the patches do not tile ``img_size``, the architecture is unknown, or a
            window or a global block cannot be.

    Attributes:
        new_parameters, unused_parameters: regular expressions of what a pretrained encoder cannot
            have for this ViT (relative positions), and of what this ViT has no place for.
    """
    new_parameters = (r'layers\.\d+\.attn\.rel_pos_[hw]', )
    unused_parameters = (r'cls_token', r'register_tokens', r'ln[12]\..*')

    def __init__(self,
                 arch: str | dict = 'vit-b',
                 img_size: int | tuple[int, int] = 1024,
                 patch_size: int = 16,
                 window_size: int = 14,
                 global_indices: Sequence[int] | None = None,
                 drop_path_rate: float = 0.,
                 final_norm: bool = False,
                 with_cp: bool = False,
                 rotary: bool = False,
                 lora: dict | None = None,
                 **kwargs: Any) -> None:
        arch = look_up(arch)
        check_tiling(img_size, patch_size)
        check_frozen(kwargs.get('frozen_stages', -1), arch.get('num_layers'))
        super().__init__(
            arch=arch,
            img_size=img_size,
            patch_size=patch_size,
            drop_path_rate=drop_path_rate,
            final_norm=final_norm,
            out_type='featmap',
            with_cls_token=False,
            **kwargs)
        self.patch_size, self.with_cp = patch_size, with_cp
        self.global_indices = check_windows(window_size, global_indices, self.num_layers)
        windows = (window_size, window_size)
        if rotary:
            self.rotary = RotaryPositions(self.embed_dims // self.arch_settings['num_heads'])
        self.is_rotary = rotary
        for i, layer in enumerate(self.layers):
            everywhere = i in self.global_indices
            layer.attn = WindowAttention(layer.attn, None if everywhere else windows,
                                         self.grid_size if everywhere else windows,
                                         self.rotary if rotary else None)
            make_mlp_lean(layer.ffn)
        make_drop_path_traceable(self)
        make_ffn_traceable(self)
        if final_norm:
            self.unused_parameters = (r'cls_token', r'register_tokens', r'ln2\..*')
        self.train_in_part(lora)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches that positions are stored for."""
        return tuple(self.patch_resolution)

    @torch.no_grad()
    def init_fresh(self) -> None:
        """As the pretraining encoder starts; relative positions at zero."""
        self.pos_embed.copy_(sincos_positions(self.embed_dims, self.grid_size)[:, 1:]
                             * (not self.is_rotary))
        self.layers.apply(init_transformer)
        for layer in self.layers:
            nn.init.zeros_(layer.attn.rel_pos_h)
            nn.init.zeros_(layer.attn.rel_pos_w)
        patch_map = self.patch_embed.projection
        nn.init.xavier_uniform_(patch_map.weight.view(patch_map.weight.shape[0], -1))
        if patch_map.bias is not None:
            nn.init.zeros_(patch_map.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Encodes images.

        Args:
            x: (B, 3, h, w) normalised pixels.

        Returns:
            One map (B, D, H, W) for each of ``out_indices``, by default the last block's alone,
            with H and W the rows and columns of patches: h and w by the patch size, rounded up.
        """
        tokens, grid = self.patch_embed(x)
        tokens = tokens + resize_pos_embed(
            self.pos_embed, self.grid_size, grid, self.interpolate_mode, num_extra_tokens=0)
        tokens = self.pre_norm(self.drop_after_pos(tokens)).unflatten(1, grid)
        maps = []
        for i, layer in enumerate(self.layers):
            tokens = self.through(layer, tokens)
            if self.final_norm and i == self.num_layers - 1:
                tokens = self.ln1(tokens)
            if i in self.out_indices:
                maps.append(tokens.permute(0, 3, 1, 2))
        return tuple(maps)


def check_windows(window_size: int, global_indices: Sequence[int] | None,
                  num_layers: int) -> tuple[int, ...]:
    """The global blocks; the last of each quarter if none are given.

    Raises:
        MilanError: if a window has no size or a block does not exist.
    """
    if not isinstance(window_size, int) or window_size < 1:
        raise MilanError('window_size is the side of a window in patches, a whole number from 1 '
                         f'(ViTDet: 14), got {window_size!r}')
    if global_indices is None:
        return tuple(sorted({max((i + 1) * num_layers // 4, 1) - 1 for i in range(4)}))
    strange = [i for i in global_indices if i not in range(num_layers)]
    if strange:
        raise MilanError(f'global_indices names block {strange[0]}, but the blocks are 0 to '
                         f'{num_layers - 1}; leave it out for the last of each quarter')
    return tuple(sorted(global_indices))
