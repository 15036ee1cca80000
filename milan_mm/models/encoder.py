# SPDX-License-Identifier: Apache-2.0
"""A ViT that can be shown some patches only."""
from typing import Any

import torch
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from ..architectures import ARCHITECTURES
from ..compat.cpu_attention import use_attention
from ..compat.drop_path import make_drop_path_traceable
from ..compat.ffn_forward import make_ffn_traceable
from ..compat.float32_products import use_linear
from ..errors import MilanError
from ..positions import sincos_positions
from ..registry import MODELS
from ..structures import gather_tokens
from .finetuning import FinetunedInPart, check_frozen
from .pretrained import StartsPretrained
from .rotary import RotaryBlock, RotaryPositions


@MODELS.register_module()
class MaskedVisionTransformer(StartsPretrained, FinetunedInPart, VisionTransformer):
    """The encoder: mmpretrain's ``VisionTransformer`` on CLS and visible patches (Sec. 3.1).

    Without ``visible`` it is the plain ViT, so the trained encoder serves classification and
    segmentation as it is, by ``init_cfg=dict(type='milan_mm.PretrainedViT', checkpoint=...)``.

    Args:
        arch: 'vit-s', 'vit-b', 'vit-l', 'vit-h', or a dict with ``embed_dims``, ``num_layers``,
            ``num_heads`` and ``feedforward_channels``.
        img_size: height and width in pixels, or one number for a square.
        patch_size: side of a patch in pixels.
        out_type: what :meth:`forward` gives without ``visible``; see ``VisionTransformer``.
        positions: 'fixed' sine-cosine ones, as in pretraining; or 'learned', which start as
            those or as the checkpoint's and are trained, as in finetuning.
        num_registers: number of tokens between CLS and the patches that take part in every block
            and are left out of what comes out (arXiv 2309.16588).
        rotary: whether queries and keys are turned by the places of their patches, see
            :class:`RotaryPositions`; there are no sine-cosine positions then.
        with_cp: keep the input of each block only and compute the block again in the backward
            pass: far less memory, about a third more time.
        lora: train low-rank matrices beside the frozen weights, and what no pretrained encoder
            has: ``dict(rank=8)``; see :meth:`train_in_part`.
        **kwargs: arguments of ``VisionTransformer``: ``frozen_stages=N``, the first N blocks and
            all before them (all blocks: the final norm too), ``with_cls_token=False``,
            ``qkv_bias=False``, ``in_channels``, ``pre_norm``, ``layer_scale_init_value``, ...

    Raises:
        MilanError: if the patches do not tile the image, the heads do not share the width, or the
            architecture is unknown.

    Attributes:
        new_parameters, unused_parameters: regular expressions of what a pretrained encoder cannot
            have for this ViT (the norm after pooling), and of what this ViT has no place for.
    """

    def __init__(self,
                 arch: str | dict = 'vit-b',
                 img_size: int | tuple[int, int] = 224,
                 patch_size: int = 16,
                 out_type: str = 'raw',
                 positions: str = 'fixed',
                 num_registers: int = 0,
                 rotary: bool = False,
                 with_cp: bool = False,
                 lora: dict | None = None,
                 **kwargs: Any) -> None:
        arch = look_up(arch)
        check_tiling(img_size, patch_size)
        check_frozen(kwargs.get('frozen_stages', -1), arch.get('num_layers'))
        check_heads(arch.get('embed_dims'), arch.get('num_heads'))
        if positions not in ('fixed', 'learned'):
            raise MilanError(f"positions must be 'fixed' or 'learned', got {positions!r}")
        super().__init__(
            arch=arch,
            img_size=img_size,
            patch_size=patch_size,
            out_type=out_type,
            **kwargs)
        if num_registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, num_registers, self.embed_dims))
        if rotary:
            self.rotary = RotaryPositions(self.embed_dims // self.arch_settings['num_heads'])
            for i, layer in enumerate(self.layers):
                self.layers[i] = RotaryBlock(layer)
        self.num_registers, self.is_rotary = num_registers, rotary
        make_drop_path_traceable(self)
        make_ffn_traceable(self)
        use_attention(self)
        use_linear(self)
        self.patch_size, self.positions, self.with_cp = patch_size, positions, with_cp
        self.pos_embed.requires_grad_(positions == 'learned' and self.pos_embed.requires_grad)
        self.reset_positions()
        self.new_parameters = (r'ln2\..*', )
        self.unused_parameters = (r'ln[12]\..*', ) if not self.final_norm else (r'ln2\..*', )
        self.train_in_part(lora)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return tuple(self.patch_resolution)

    @torch.no_grad()
    def reset_positions(self) -> None:
        positions = sincos_positions(self.embed_dims, self.grid_size)
        self.pos_embed.copy_(positions[:, 1 - self.num_extra_tokens:] * (not self.is_rotary))

    @torch.no_grad()
    def init_fresh(self) -> None:
        """MAE's initialisation, which MILAN keeps: Xavier for every linear map."""
        self.reset_positions()
        self.layers.apply(init_transformer)
        patch_map = self.patch_embed.projection
        nn.init.xavier_uniform_(patch_map.weight.view(patch_map.weight.shape[0], -1))
        if patch_map.bias is not None:
            nn.init.zeros_(patch_map.bias)
        if self.with_cls_token:
            nn.init.normal_(self.cls_token, std=.02)
        if self.num_registers:
            nn.init.normal_(self.register_tokens, std=.02)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        if param_name == f'{prefix}register_tokens':
            param_name = f'{prefix}cls_token'
        return super().get_layer_depth(param_name, prefix)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Any:
        """Encodes a whole image, or its visible patches.

        Args:
            x: (B, 3, H, W) normalised pixels.
            visible: (B, V) raster indices, or None for all patches. There may be several
                neighbouring rows for each image; the result has as many.

        Returns:
            (B, 1 + V, D), CLS first, in the order of ``visible``; without ``visible`` the tuple
            that ``VisionTransformer`` gives for ``out_type``. Where there is no CLS token, the mean
            of the visible patches stands in its place.
        """
        tokens, angles = self.embed(x, visible)
        if visible is not None:
            for layer in self.layers:
                tokens = self.through(layer, tokens, *angles)
            return self.outward(self.ln1(tokens) if self.final_norm else tokens)
        # The patch map pads what does not divide.
        grid, outputs = tuple(-(-side // self.patch_size) for side in x.shape[-2:]), []
        for i, layer in enumerate(self.layers):
            tokens = self.through(layer, tokens, *angles)
            if i == len(self.layers) - 1 and self.final_norm:
                tokens = self.ln1(tokens)
            if i in self.out_indices:
                outputs.append(self._format_output(self.without_registers(tokens), grid))
        return tuple(outputs)

    def embed(self, x: Tensor, visible: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What the first block gets: tokens, and of rotary positions the angles.

        Args:
            x, visible: see :meth:`forward`.

        Returns:
            Tokens (B, E + R + V, D) with E CLS tokens and R registers; and (), or the angles of
            the V patches.
        """
        patches, grid = self.patch_embed(x)
        extra = self.num_extra_tokens
        positions = resize_pos_embed(self.pos_embed, self.grid_size, grid, self.interpolate_mode,
                                     extra)
        patches = patches + positions[:, extra:]
        angles = (self.rotary(grid), ) if self.is_rotary else ()
        if visible is not None:
            patches = gather_tokens(patches, visible)
            angles = tuple(one[visible][:, None] for one in angles)
        parts = [self.cls_token + positions[:, :1]] if self.with_cls_token else []
        parts += [self.register_tokens] if self.num_registers else []
        batch = patches.shape[0]  # open in an exported graph, where len() is not
        tokens = torch.cat([*(part.expand(batch, -1, -1) for part in parts), patches], dim=1)
        return self.pre_norm(self.drop_after_pos(tokens)), angles

    def without_registers(self, tokens: Tensor) -> Tensor:
        """Tokens (B, E + R + V, D) give (B, E + V, D)."""
        if not self.num_registers:
            return tokens
        extra = self.num_extra_tokens
        return torch.cat([tokens[:, :extra], tokens[:, extra + self.num_registers:]], dim=1)

    def outward(self, tokens: Tensor) -> Tensor:
        """A block's tokens as decoders know them: (B, 1 + V, D), CLS or the mean first."""
        tokens = self.without_registers(tokens)
        return tokens if self.with_cls_token else torch.cat(
            [tokens.mean(dim=1, keepdim=True), tokens], dim=1)


def look_up(arch: str | dict) -> dict:
    """Widths and depth of an architecture given by name, or as they are.

    Raises:
        MilanError: if there is none of that name.
    """
    if isinstance(arch, str):
        if arch not in ARCHITECTURES:
            raise MilanError(f'unknown architecture {arch!r}; known are {sorted(ARCHITECTURES)}, '
                             'or give a dict of widths and depths')
        arch = ARCHITECTURES[arch]
    return dict(arch)


def check_heads(width: Any, heads: Any) -> None:
    """Raises MilanError if an attention's heads cannot share its channels evenly."""
    if isinstance(width, int) and isinstance(heads, int) and (heads < 1 or width % heads):
        raise MilanError(f'{heads} heads cannot share {width} channels: set num_heads to a divisor '
                         f'of {width}')


def check_tiling(img_size: int | tuple[int, int], patch_size: int) -> None:
    """Raises MilanError, naming sizes that would do, if patches do not tile the image."""
    for side in (img_size, img_size) if isinstance(img_size, int) else img_size:
        if side < patch_size or side % patch_size:
            below = max(side // patch_size, 1) * patch_size
            raise MilanError(
                f'patches of {patch_size} do not tile an image of {img_size}: {side} is not a '
                f'multiple of {patch_size}. Set img_size to {below} or {below + patch_size}, or '
                'another patch_size')


def init_transformer(module: nn.Module) -> None:
    """Xavier for linear maps, zero biases, unit norms (for ``nn.Module.apply``)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
