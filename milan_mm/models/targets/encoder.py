# SPDX-License-Identifier: Apache-2.0
"""A trained encoder as teacher: an earlier run, MAE, DINO, or any ViT this package can read."""
import json
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from ...checkpoints.handover import load_encoder
from ...checkpoints.hf_dinov2 import has_no_place_here
from ...checkpoints.spec import encoder_options
from ...checkpoints.vit import read_vit
from ...checkpoints.zoo import named, nearest
from ...errors import MilanError
from ...registry import MODELS
from ...structures import pair
from ..encoder import MaskedVisionTransformer
from ..rotary import rotate
from .timm_towers import TimmTower
from .timm_weights import load_timm_vit
from .tower import Tower, TowerTargetGenerator, check_options, cls_importance


@MODELS.register_module()
class EncoderTargetGenerator(TowerTargetGenerator):
    """Features of every token of a frozen ViT, run by :class:`MaskedVisionTransformer`.

    The features are the tokens after the last block and the final norm, CLS first; of an encoder
    without a final norm (finetuned by mean pooling) as the last block leaves them. The importance
    is the attention of CLS to the patches in the last block, averaged over heads. Of an encoder
    that was trained by reconstruction (MAE) that attention is defined, and means little: no loss
    asked its CLS token for anything.

    Args:
        checkpoint: whatever :func:`milan_mm.checkpoints.vit.read_vit` knows: a checkpoint
            of this package or of mmpretrain, MAE's and MILAN's published files, a ViT of timm, a
            DINOv2 file, a folder of a Hugging Face ViT or DINOv2 (with or without registers).
        normalize: 'own' re-normalises the student's pixels with the encoder's mean and standard
            deviation; 'student' feeds them as they are.
        amp: see :class:`TowerTargetGenerator`.
        trust: see :func:`milan_mm.checkpoints.io.read_checkpoint`.

    Raises:
        MilanError: if the file holds no whole encoder.
    """

    def __init__(self,
                 checkpoint: str | Path,
                 normalize: str = 'own',
                 amp: str | None = None,
                 trust: bool = False) -> None:
        check_options(normalize, amp)
        super().__init__(load_encoder_tower(checkpoint, trust), normalize, amp)


class EncoderTower(Tower):
    """A :class:`MaskedVisionTransformer` asked for every token and for importance.

    Args:
        backbone: with its weights.
        mean, std: pixel statistics it was trained with, in 0..1.
    """

    def __init__(self, backbone: MaskedVisionTransformer, mean: tuple[float, ...],
                 std: tuple[float, ...]) -> None:
        super().__init__()
        self.backbone = backbone
        self.mean, self.std = tuple(mean), tuple(std)
        self.dim, self.patch_size = backbone.embed_dims, backbone.patch_size
        self.grid_size = backbone.grid_size

    def set_grid(self, grid_size: tuple[int, int]) -> None:
        positions, old = self.at_first(self.backbone.pos_embed)
        positions = resize_pos_embed(
            positions, old, tuple(grid_size), 'bicubic', self.backbone.num_extra_tokens)
        self.backbone.pos_embed = nn.Parameter(positions, requires_grad=False)
        self.backbone.patch_resolution = self.grid_size = pair(grid_size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (B, 3, H, W) give features (B, 1 + N, T) and importance (B, N)."""
        (x, ), importance = run_blocks(self.backbone, images)
        return (self.backbone.ln1(x) if self.backbone.final_norm else x), importance


def run_blocks(vit: MaskedVisionTransformer, images: Tensor,
               levels: int = 1) -> tuple[list[Tensor], Tensor]:
    """A ViT on whole images, before its final norm.

    Args:
        vit: the encoder; its positions are for the images' grid.
        images: (B, 3, H, W).
        levels: number of last blocks whose outputs are wanted.

    Returns:
        The outputs (B, 1 + N, D), that of the last block last; and the attention of CLS to the
        patches in the last block, (B, N) float32. Where there is no CLS, of the mean token.
    """
    x, angles = vit.embed(images)
    outputs, first = [], len(vit.layers) - levels
    for i, block in enumerate(vit.layers):
        if i == len(vit.layers) - 1:
            asks = x[:, :1] if vit.with_cls_token else x.mean(dim=1, keepdim=True)
            row = cls_attention(block, x, angles[0] if angles else None, asks)
        x = block(x, *angles)
        if i >= first:
            outputs.append(vit.outward(x))
    return outputs, row[:, vit.num_extra_tokens + vit.num_registers:]


def cls_attention(block: nn.Module, x: Tensor, angles: Tensor | None = None,
                  asks: Tensor | None = None) -> Tensor:
    """Attention of CLS, or another token without a place, to all tokens in a block of our ViT.

    Args:
        block: with ``ln1`` and ``attn``.
        x: (B, L, D) its input.
        angles: of rotary positions, of the last tokens of ``x``.
        asks: (B, 1, D) the token that asks; None for the first one, CLS.

    Returns:
        (B, L) float32; each row sums to 1.
    """
    attn = block.attn
    x, asks = block.ln1(x), block.ln1(x[:, :1] if asks is None else asks)
    heads = (attn.num_heads, attn.head_dims)
    query, key, _ = attn.qkv.weight.chunk(3)
    query_bias, key_bias, _ = (None, ) * 3 if attn.qkv.bias is None else attn.qkv.bias.chunk(3)
    query = nn.functional.linear(asks, query, query_bias).unflatten(-1, heads).transpose(1, 2)
    key = nn.functional.linear(x, key, key_bias).unflatten(-1, heads).transpose(1, 2)
    return cls_importance(query, key if angles is None else rotate(key, angles))


def load_encoder_tower(checkpoint: str | Path, trust: bool = False) -> Tower:
    """Reads a ViT of any known format and builds it.

    A Hugging Face folder of a DINOv2 with registers or gated MLPs, which this package's ViT has
    no place for, becomes one of timm.

    Raises:
        MilanError: if there is no such file, or it holds no whole ViT.
    """
    path = named(checkpoint)
    if not path.exists():
        raise MilanError(f'teacher weights not found: {checkpoint} is neither a file nor a folder '
                         'here. Give the path of a checkpoint, such as an earlier run\'s '
                         f'epoch_400.pth, or a name of milan_mm.list_models(){nearest(checkpoint)}')
    config = _config_beside(path)
    if has_no_place_here(config):
        found = load_timm_vit(None, str(path), trust=trust)
        return TimmTower(found.vit, found.name, mean=found.mean, std=found.std)
    try:
        vit = read_vit(path, trust)
    except MilanError as error:
        if 'register' not in str(error) and 'SwiGLU' not in str(error):
            raise
        raise MilanError(f'{error}. Or take it as a teacher of timm: TimmTargetGenerator(model='
                         "'vit_base_patch14_reg4_dinov2', pretrained=FILE)") from error
    spec = vit.spec
    backbone = MaskedVisionTransformer(**encoder_options(vit.encoder, spec))
    decoder = [f'neck.{key}' for key in vit.decoder]
    words = load_encoder(backbone, vit._replace(beside=vit.beside + decoder))
    print_log(f'Teacher: {words}', logger='current')
    return EncoderTower(backbone, tuple(v / 255 for v in spec.pixel_mean),
                        tuple(v / 255 for v in spec.pixel_std))


def _config_beside(folder: Path) -> dict[str, Any]:
    """``config.json`` of a Hugging Face folder; empty for anything else."""
    file = folder / 'config.json'
    try:
        return json.loads(file.read_text(encoding='utf-8')) if file.is_file() else {}
    except ValueError:
        return {}  # read_vit says what is wrong
