# SPDX-License-Identifier: Apache-2.0
"""What the ``config.json`` of a folder of timm says of its ViT, and what its weights add to it."""
from typing import Any

from ..architectures import IMAGENET_CROP_RATIO, known_heads
from ..errors import MilanError
from ..structures import pair
from .spec import IMAGENET_MEAN, IMAGENET_STD


def describe_by_timm(config: dict, state: dict[str, Any], source: str) -> dict | None:
    """As this package's checkpoints describe theirs; see :func:`describe_by_folder`.

    Args:
        config: of ``config.json``, with ``architecture``, ``pretrained_cfg`` and perhaps
            ``model_args``.
        state: the weights, in timm's names.
        source: the folder.

    Returns:
        None for what is no plain ViT, or whose size is not told: the weights have to do.

    Raises:
        MilanError: if the values are none that timm would take.
    """
    try:
        patches, hidden = state['patch_embed.proj.weight'], state['blocks.0.mlp.fc1.weight']
    except KeyError:
        return None
    name, told = str(config['architecture']), config.get('pretrained_cfg') or {}
    args = config.get('model_args') or {}
    width, channels, patch = patches.shape[:3]
    depth = len({key.split('.')[1] for key in state if key.startswith('blocks.')})
    try:
        size = args.get('img_size') or told['input_size'][1:]
        height, columns = pair(size if isinstance(size, int) else [int(side) for side in size])
        mean, std = ([255 * float(v) for v in told.get(key) or ()] for key in ('mean', 'std'))
        crop = float(told.get('crop_pct') or IMAGENET_CROP_RATIO)
        heads = args.get('num_heads') or _heads(name, args, width, depth)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MilanError(f'{source}/config.json does not describe a ViT of timm '
                         f'({type(error).__name__}: {error})') from error
    if heads is None or not _placed(state, (height // patch) * (columns // patch)):
        return None
    usual = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ([127.5] * channels, ) * 2
    quick = 'quickgelu' in name or 'quick_gelu' in str(args.get('act_layer'))
    # timm's ViTs differ in the eps of their norms by the network's name: CLIP's and DINOv3's.
    eps = 1e-5 if 'clip' in name or 'pos_embed' not in state else 1e-6
    arch = dict(embed_dims=width, num_layers=depth, num_heads=int(heads),
                feedforward_channels=hidden.shape[0])
    return dict(
        encoder=dict(arch=arch, img_size=[height, columns], patch_size=patch, quick_gelu=quick,
                     norm_eps=eps),
        pixel_mean=mean or usual[0], pixel_std=std or usual[1], crop_ratio=crop)


def _placed(state: dict[str, Any], patches: int) -> bool:
    """Whether the positions are those of so many patches, CLS and registers with or without."""
    if 'pos_embed' not in state:
        return True
    others = sum(state[key].shape[1] for key in ('cls_token', 'reg_token') if key in state)
    return patches <= state['pos_embed'].shape[1] <= patches + others


def _heads(name: str, args: dict[str, Any], width: int, depth: int) -> int | None:
    known = known_heads(width, depth)
    if known is not None:
        return known
    import timm
    if not timm.is_model(name):
        return None
    blocks: Any = timm.create_model(name, **{**args, 'num_classes': 0}).blocks
    return int(blocks[0].attn.num_heads)
