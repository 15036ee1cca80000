# SPDX-License-Identifier: Apache-2.0
"""A ViT that can be shown some patches only."""
from typing import Any

import torch
from mmpretrain.models import VisionTransformer
from torch import Tensor, nn

from ..architectures import ARCHITECTURES
from ..compat.drop_path import make_drop_path_traceable
from ..compat.ffn_forward import make_ffn_traceable
from ..errors import MilanError
from ..positions import sincos_positions
from ..registry import MODELS
from ..structures import gather_tokens
from .pretrained import StartsPretrained


@MODELS.register_module()
class MaskedVisionTransformer(StartsPretrained, VisionTransformer):
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
        **kwargs: arguments of ``VisionTransformer``.

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
                 **kwargs: Any) -> None:
        arch = look_up(arch)
        check_tiling(img_size, patch_size)
        check_heads(arch.get('embed_dims'), arch.get('num_heads'))
        if positions not in ('fixed', 'learned'):
            raise MilanError(f"positions must be 'fixed' or 'learned', got {positions!r}")
        super().__init__(
            arch=arch,
            img_size=img_size,
            patch_size=patch_size,
            out_type=out_type,
            **kwargs)
        make_drop_path_traceable(self)
        make_ffn_traceable(self)
        self.patch_size, self.positions = patch_size, positions
        self.pos_embed.requires_grad_(positions == 'learned' and self.pos_embed.requires_grad)
        self.reset_positions()
        self.new_parameters = (r'ln2\..*', )
        self.unused_parameters = (r'ln[12]\..*', ) if not self.final_norm else (r'ln2\..*', )

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return tuple(self.patch_resolution)

    @torch.no_grad()
    def reset_positions(self) -> None:
        self.pos_embed.copy_(sincos_positions(self.embed_dims, self.grid_size))

    @torch.no_grad()
    def init_fresh(self) -> None:
        """MAE's initialisation, which MILAN keeps: Xavier for every linear map."""
        self.reset_positions()
        self.layers.apply(init_transformer)
        patch_map = self.patch_embed.projection
        nn.init.xavier_uniform_(patch_map.weight.view(patch_map.weight.shape[0], -1))
        if patch_map.bias is not None:
            nn.init.zeros_(patch_map.bias)
        nn.init.normal_(self.cls_token, std=.02)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Any:
        """Encodes a whole image, or its visible patches.

        Args:
            x: (B, 3, H, W) normalised pixels.
            visible: (B, V) raster indices, or None for all patches. There may be several
                neighbouring rows for each image; the result has as many.

        Returns:
            (B, 1 + V, D), CLS first, in the order of ``visible``; without ``visible`` the tuple
            that ``VisionTransformer`` gives for ``out_type``.
        """
        if visible is None:
            return super().forward(x)
        patches = self.patch_embed(x)[0] + self.pos_embed[:, 1:]
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(visible.shape[0], -1, -1)
        tokens = self.pre_norm(torch.cat([cls, gather_tokens(patches, visible)], dim=1))
        for layer in self.layers:
            tokens = layer(tokens)
        return self.ln1(tokens)


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
