# SPDX-License-Identifier: Apache-2.0
"""The same ViT under the names of each library, as tables.

Inside this package an encoder's tensors carry mmpretrain's names without a prefix
(``layers.0.ln1.weight``). A :class:`Naming` says what another library calls them, which tensors
beside the encoder may be there, and which no ViT of this package has a place for.
"""
import re
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Naming(NamedTuple):
    """How one library names a ViT.

    Attributes:
        blocks: what stands before a block's number.
        inner: (theirs, ours) names of modules or parameters inside a block.
        outer: the same around the blocks.
        beside: regular expressions of tensors that belong to no encoder (a decoder, a head).
        foreign: (regular expression, words) of encoder tensors that have no place here.
        our_blocks: what stands before a block's number in this package.
    """
    blocks: str
    inner: tuple[tuple[str, str], ...]
    outer: tuple[tuple[str, str], ...]
    beside: tuple[str, ...] = ()
    foreign: tuple[tuple[str, str], ...] = ()
    our_blocks: str = 'layers'


_SWIGLU = 'its MLPs are gated (SwiGLU), and those of this ViT are not: take a smaller variant'
_RELATIVE = ('relative positions belong to a detector\'s windows: convert the pretraining '
             'checkpoint instead')
_BIAS_TABLE = ('its attention has tables of relative positions (BEiT), and that of this ViT has '
               'none. As a teacher it serves: milan_mm.TimmTargetGenerator')
_NORMED = ('its attention normalises queries and keys, and that of this ViT does not. As a '
           'teacher it serves: milan_mm.TimmTargetGenerator')

MMPRETRAIN = Naming(
    blocks='layers',
    inner=(*((name, name) for name in ('ln1', 'attn.qkv', 'attn.proj', 'ln2', 'ffn.layers.0.0',
                                       'ffn.layers.1', 'attn.gamma1', 'ffn.gamma2')),
           # mmseg's VisionTransformer
           ('attn.attn.in_proj_weight', 'attn.qkv.weight'),
           ('attn.attn.in_proj_bias', 'attn.qkv.bias'), ('attn.attn.out_proj', 'attn.proj')),
    outer=tuple((name, name) for name in (
        'cls_token', 'register_tokens', 'pos_embed', 'rotary.periods', 'patch_embed.projection',
        'pre_norm', 'ln1', 'ln2')),
    foreign=((r'layers\.\d+\.attn\.rel_pos_[hw]', _RELATIVE),
             (r'layers\.\d+\.ffn\.w12\..*', _SWIGLU)))

# timm's names, which the published checkpoints of MAE, MILAN, DINO, DINOv2 and DINOv3 share.
TIMM = Naming(
    blocks='blocks',
    inner=(('norm1', 'ln1'), ('attn.qkv', 'attn.qkv'), ('attn.proj', 'attn.proj'),
           ('norm2', 'ln2'), ('mlp.fc1', 'ffn.layers.0.0'), ('mlp.fc2', 'ffn.layers.1'),
           ('ls1.gamma', 'attn.gamma1.weight'), ('ls2.gamma', 'ffn.gamma2.weight'),
           ('gamma_1', 'attn.gamma1.weight'), ('gamma_2', 'ffn.gamma2.weight')),
    outer=(('cls_token', 'cls_token'), ('pos_embed', 'pos_embed'), ('reg_token', 'register_tokens'),
           ('register_tokens', 'register_tokens'), ('storage_tokens', 'register_tokens'),
           ('rope_embed.periods', 'rotary.periods'),
           ('patch_embed.proj', 'patch_embed.projection'), ('norm_pre', 'pre_norm'),
           ('norm', 'ln1'), ('fc_norm', 'ln2')),
    beside=(r'decoder_.*', r'mask_token', r'head\..*', r'head_dist\..*'),
    foreign=((r'blocks\.\d+\.mlp\.w\d+\..*|blocks\.\d+\.mlp\.fc1_[gx]\..*', _SWIGLU),
             (r'.*relative_position_.*', _BIAS_TABLE),
             (r'blocks\.\d+\.attn\.[qk]_norm\..*', _NORMED),
             (r'dist_token', 'it has a distillation token, and this ViT has none: take DeiT\'s '
                             'variant without distillation')))

HF = Naming(
    blocks='encoder.layer',
    inner=(('layernorm_before', 'ln1'), ('attention.qkv', 'attn.qkv'),
           ('attention.output.dense', 'attn.proj'), ('layernorm_after', 'ln2'),
           ('intermediate.dense', 'ffn.layers.0.0'), ('output.dense', 'ffn.layers.1')),
    outer=(('embeddings.cls_token', 'cls_token'), ('embeddings.position_embeddings', 'pos_embed'),
           ('embeddings.register_tokens', 'register_tokens'),
           ('embeddings.patch_embeddings.projection', 'patch_embed.projection'),
           ('layernorm', 'ln1')),
    beside=(r'pooler\..*', r'classifier\..*', r'decoder\..*', r'embeddings\.mask_token'),
    foreign=((r'.*relative_position_.*', _BIAS_TABLE), ))

# DINOv2 as Hugging Face's Dinov2Model and Dinov2WithRegistersModel name it.
HF_DINOV2 = HF._replace(
    inner=(('norm1', 'ln1'), ('attention.qkv', 'attn.qkv'),
           ('attention.output.dense', 'attn.proj'), ('norm2', 'ln2'), ('mlp.fc1', 'ffn.layers.0.0'),
           ('mlp.fc2', 'ffn.layers.1'), ('layer_scale1.lambda1', 'attn.gamma1.weight'),
           ('layer_scale2.lambda1', 'ffn.gamma2.weight')),
    foreign=HF.foreign + ((r'encoder\.layer\.\d+\.mlp\.weights_.*', _SWIGLU), ))

# DINOv3 as Hugging Face's DINOv3ViTModel names it.
HF_DINOV3 = HF_DINOV2._replace(
    blocks='layer',
    inner=(*HF_DINOV2.inner, ('attention.o_proj', 'attn.proj'), ('mlp.up_proj', 'ffn.layers.0.0'),
           ('mlp.down_proj', 'ffn.layers.1')),
    outer=(*HF.outer, ('embeddings.patch_embeddings', 'patch_embed.projection'), ('norm', 'ln1')),
    foreign=((r'layer\.\d+\.mlp\.gate_proj\..*', _SWIGLU), ))

# CLIP's image tower in OpenAI's and open_clip's names; only read.
CLIP = Naming(
    blocks='transformer.resblocks',
    inner=(('ln_1', 'ln1'), ('attn.in_proj_weight', 'attn.qkv.weight'),
           ('attn.in_proj_bias', 'attn.qkv.bias'), ('attn.out_proj', 'attn.proj'),
           ('ln_2', 'ln2'), ('mlp.c_fc', 'ffn.layers.0.0'), ('mlp.c_proj', 'ffn.layers.1')),
    outer=(('class_embedding', 'cls_token'), ('positional_embedding', 'pos_embed'),
           ('conv1', 'patch_embed.projection'), ('ln_pre', 'pre_norm'), ('ln_post', 'ln1')),
    beside=(r'proj', ))

# torchvision's VisionTransformer, and lightly's MAE that is built on it; only read.
TORCHVISION = Naming(
    blocks='encoder.layers',  # encoder_layer_0 is 0 by then
    inner=(('ln_1', 'ln1'), ('self_attention.in_proj_weight', 'attn.qkv.weight'),
           ('self_attention.in_proj_bias', 'attn.qkv.bias'),
           ('self_attention.out_proj', 'attn.proj'), ('ln_2', 'ln2'), ('mlp.0', 'ffn.layers.0.0'),
           ('mlp.3', 'ffn.layers.1'), ('mlp.linear_1', 'ffn.layers.0.0'),
           ('mlp.linear_2', 'ffn.layers.1')),
    outer=(('class_token', 'cls_token'), ('encoder.pos_embedding', 'pos_embed'),
           ('conv_proj', 'patch_embed.projection'), ('encoder.ln', 'ln1')),
    beside=(r'heads\..*', r'mask_token'))


# MAE's decoder, published beside its encoder; the prompting decoder has the published names here.
MAE_DECODER = Naming(
    blocks='decoder_blocks',
    our_blocks='decoder_blocks',
    inner=TIMM.inner,
    outer=(('decoder_norm', 'ln1'), *((name, name) for name in (
        'mask_token', 'decoder_pos_embed', 'decoder_embed', 'decoder_pred'))))


class Renamed(NamedTuple):
    """A state dict sorted by what its tensors are.

    Attributes:
        ours: in this package's names.
        beside: names of tensors that are none of an encoder's.
        unknown: names of tensors the naming does not have.
    """
    ours: dict[str, Tensor]
    beside: list[str]
    unknown: list[str]


def to_ours(state: dict[str, Tensor], naming: Naming) -> Renamed:
    """Renames tensors into this package's names; their values are left as they are."""
    found = Renamed({}, [], [])
    for key, value in state.items():
        name = _rename(key, naming.blocks, naming.our_blocks, naming.inner, naming.outer)
        if name is not None:
            found.ours[name] = value
        elif any(re.fullmatch(pattern, key) for pattern in naming.beside):
            found.beside.append(key)
        else:
            found.unknown.append(key)
    return found


def from_ours(state: dict[str, Tensor],
              naming: Naming) -> tuple[dict[str, Tensor], list[str]]:
    """The inverse: in another library's names, and what that library has no name for."""
    renamed, nameless = {}, []
    for key, value in state.items():
        name = theirs(key, naming)
        if name is None:
            nameless.append(key)
        else:
            renamed[name] = value
    return renamed, nameless


def theirs(key: str, naming: Naming) -> str | None:
    """What another library calls a tensor of this package; None if it has no name for it."""
    inner, outer = ([(ours, other) for other, ours in pairs]
                    for pairs in (naming.inner, naming.outer))
    return _rename(key, naming.our_blocks, naming.blocks, inner, outer)


def in_file(key: str, format: str, layer_scale: bool = False) -> str:
    """What a file of a format calls an encoder's tensor, for messages.

    Args:
        key: in this package's names.
        format: one of ``vit.FORMATS``.
        layer_scale: whether the encoder has it; of Hugging Face's, DINOv2's has.
    """
    naming = dict(authors=TIMM, timm=TIMM, clip=CLIP, hf=HF_DINOV2 if layer_scale else HF,
                  dinov3=HF_DINOV3, torchvision=TORCHVISION)
    name = theirs(key, naming[format]) if format in naming else None
    # There query, key and value are tensors of their own.
    return (name or key).replace('.attention.qkv.', '.attention.attention.query.')


def why_foreign(key: str, naming: Naming) -> str | None:
    """Why this package has no place for a tensor, if that is known."""
    return next((words for pattern, words in naming.foreign if re.fullmatch(pattern, key)), None)


def _rename(key: str, blocks: str, new_blocks: str, inner: Sequence[tuple[str, str]],
            outer: Sequence[tuple[str, str]]) -> str | None:
    match = re.fullmatch(rf'{re.escape(blocks)}\.(\d+)\.(.+)', key)
    pairs, prefix, rest = ((inner, f'{new_blocks}.{match.group(1)}.', match.group(2)) if match else
                           (outer, '', key))
    for old, new in pairs:
        if rest == old:
            return prefix + new
        for kind in ('.weight', '.bias'):
            if rest == old + kind:
                return prefix + new + kind
    return None


def to_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames ``backbone.*`` and ``neck.*`` of a model; anything else is left out."""
    encoder, decoder = ({k.removeprefix(p): v for k, v in state.items() if k.startswith(p)}
                        for p in ('backbone.', 'neck.'))
    if any(k.startswith('decoder_blocks.0.ln1.') for k in decoder):
        decoder = from_ours(decoder, MAE_DECODER)[0]
    return {**from_ours(encoder, TIMM)[0], **decoder}


def to_openmmlab(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse: ``backbone.*`` for an encoder's tensors, ``neck.*`` for all others."""
    found = to_ours(state, TIMM)
    decoder = {key: state[key] for key in found.beside + found.unknown}
    if any(k.startswith('decoder_blocks.0.attn.qkv.') for k in decoder):
        decoder = to_ours(decoder, MAE_DECODER).ours
    return {**{f'backbone.{k}': v for k, v in found.ours.items()},
            **{f'neck.{k}': v for k, v in decoder.items()}}
