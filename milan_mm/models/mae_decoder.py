# SPDX-License-Identifier: Apache-2.0
"""MAE's decoder: every token, visible ones too, passes through every block."""
from typing import Any

import torch
from mmpretrain.models import MAEPretrainDecoder
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from ..compat.cpu_attention import use_attention
from ..compat.drop_path import make_drop_path_traceable
from ..compat.ffn_forward import make_ffn_traceable
from ..compat.float32_products import use_linear
from ..positions import sincos_positions
from ..registry import MODELS
from ..structures import MaskIds, pair
from .encoder import check_heads, init_transformer


@MODELS.register_module()
class MAEDecoder(MAEPretrainDecoder):
    """mmpretrain's ``MAEPretrainDecoder`` behind the interface of the other decoders.

    The control of the paper's decoder ablation (Table 5), and with pixel targets MAE itself.
    Self-attention does not care for order, so tokens stay in the order CLS, visible, masked and
    take their positions along. The arguments are those of :class:`PromptingDecoder`.
    """

    def __init__(self,
                 embed_dim: int,
                 grid_size: tuple[int, int],
                 predict_feature_dim: int,
                 decoder_embed_dim: int = 512,
                 decoder_depth: int = 8,
                 decoder_num_heads: int = 16,
                 mlp_ratio: float = 4.,
                 init_cfg: Any | None = None) -> None:
        check_heads(decoder_embed_dim, decoder_num_heads)
        # mmpretrain derives the width of the prediction from a patch size in pixels; a 1 x 1
        # patch of T channels says T.
        super().__init__(
            num_patches=grid_size[0] * grid_size[1],
            patch_size=1,
            in_chans=predict_feature_dim,
            embed_dim=embed_dim,
            decoder_embed_dim=decoder_embed_dim,
            decoder_depth=decoder_depth,
            decoder_num_heads=decoder_num_heads,
            mlp_ratio=mlp_ratio,
            norm_cfg=dict(type='LN', eps=1e-6),
            init_cfg=init_cfg)
        make_drop_path_traceable(self)
        make_ffn_traceable(self)
        use_attention(self)
        use_linear(self)
        self.grid_size = self.seen_grid = pair(grid_size)
        self.reset_positions()

    @torch.no_grad()
    def reset_positions(self) -> None:
        width = self.decoder_pos_embed.shape[-1]
        self.decoder_pos_embed.copy_(sincos_positions(width, self.grid_size))

    def set_grid(self, grid_size: tuple[int, int]) -> None:
        """Prepares for images of so many rows and columns of patches."""
        self.seen_grid = pair(grid_size)

    def init_weights(self) -> None:
        # Not MAEPretrainDecoder's, which assumes a square grid of patches.
        super(MAEPretrainDecoder, self).init_weights()
        if self.init_cfg:
            return
        self.apply(init_transformer)
        nn.init.normal_(self.mask_token, std=.02)
        self.reset_positions()

    def forward(self, latent: Tensor, masks: MaskIds) -> Tensor:
        """Decodes.

        Args:
            latent: (B, 1 + V, D) from the encoder, CLS first.
            masks: the patches ``latent`` is of.

        Returns:
            (B, 1 + N, T) predictions in the order CLS, visible, masked.
        """
        tokens = self.decoder_embed(latent)
        mask_tokens = self.mask_token.expand(*masks.masked.shape, -1)
        tokens = torch.cat([tokens, mask_tokens], dim=1)
        tokens = tokens + masks.arrange(
            resize_pos_embed(self.decoder_pos_embed, self.grid_size, self.seen_grid))
        for block in self.decoder_blocks:
            tokens = block(tokens)
        return self.decoder_pred(self.decoder_norm(tokens))
