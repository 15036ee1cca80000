# SPDX-License-Identifier: Apache-2.0
"""Folders that timm and Transformers load without this package: weights, config, model card."""
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from ..errors import MilanError
from ..packages import __version__
from . import naming
from .convert import convert
from .naming import from_ours
from .spec import registers_of
from .vit import ViTWeights, read_vit

_USE = dict(
    timm="import timm\nmodel = timm.create_model('local-dir:FOLDER', pretrained=True)",
    hf="from transformers import AutoModel\nmodel = AutoModel.from_pretrained('FOLDER', "
       'add_pooling_layer=False)')


def write_folder(source: str | Path, folder: Path, to: str, weights: str | None = None,
                 trust: bool = False) -> ViTWeights:
    """Writes the encoder of a checkpoint as a folder of timm or Transformers, with a model card.

    Args:
        source: see :func:`read_vit`.
        folder: new, or empty.
        to: 'timm' or 'hf'.
        weights: see :func:`read_vit`.
        trust: see :func:`read_checkpoint`.

    Returns:
        What was read.

    Raises:
        MilanError: if that library's ViT has no place for what the encoder has. Nothing is
            written then.
    """
    vit = read_vit(source, trust, weights=weights)
    folder = folder.expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MilanError(f'{folder} exists and is not empty; give the name of a new folder')
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f'.{folder.name}.', dir=folder.parent))
    try:
        if to == 'hf':
            convert(source, made, 'hf', trust=trust, weights=weights)
        else:
            _write_timm(vit, made)
        (made / 'README.md').write_text(model_card(vit, to, folder.name), encoding='utf-8')
        made.chmod(0o755)
        os.replace(made, folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return vit


def model_card(vit: ViTWeights, to: str, name: str) -> str:
    """What is known of the weights, and how they are loaded, as Markdown with a YAML head."""
    arch, spec = vit.spec.arch, vit.spec
    library = dict(timm='timm', hf='transformers')[to]
    run = {key: value for key, value in (vit.described or {}).items()
           if key in ('algorithm', ) and value}
    facts = {
        'pretrained by': run.get('algorithm', 'see the source of the weights'),
        'width, blocks, heads': f'{arch["embed_dims"]}, {arch["num_layers"]}, {arch["num_heads"]}',
        'image, patch': f'{spec.img_size[0]} x {spec.img_size[1]}, {spec.patch_size}',
        'pixel mean': ', '.join(f'{v:.4f}' for v in spec.pixel_mean),
        'pixel standard deviation': ', '.join(f'{v:.4f}' for v in spec.pixel_std),
        'exported with': f'milan_mm {__version__}'}
    table = '\n'.join(f'| {key} | {value} |' for key, value in facts.items())
    use = _USE[to].replace('FOLDER', name)
    return (f'---\nlibrary_name: {library}\npipeline_tag: image-feature-extraction\n'
            f'tags: [image-feature-extraction, vit, milan]\n---\n# {name}\n\n'
            f'A ViT encoder, without a classifier.\n\n| | |\n|---|---|\n{table}\n\n'
            f'```python\n{use}\n```\n\nState the licence and the training data before you publish '
            'it.\n')


def _write_timm(vit: ViTWeights, folder: Path) -> None:
    state, args = _timm_state(vit)
    spec, arch = vit.spec, vit.spec.arch
    # The two differ in the eps of their norms, which no argument sets.
    name = {1e-6: 'vit_base_patch16_224', 1e-5: 'vit_base_patch16_clip_224'}.get(spec.norm_eps)
    if name is None:
        raise MilanError(f'{vit.source}: timm has no plain ViT whose norms add {spec.norm_eps:g}. '
                         'Use --to onnx or --to safetensors')
    with_cls = 'cls_token' in vit.encoder
    config = dict(
        architecture=name, num_classes=0, num_features=arch['embed_dims'],
        global_pool='token' if with_cls else 'avg',
        model_args={**dict(
            img_size=list(spec.img_size), patch_size=spec.patch_size, embed_dim=arch['embed_dims'],
            depth=arch['num_layers'], num_heads=arch['num_heads'],
            mlp_ratio=(arch['feedforward_channels'] + .5) / arch['embed_dims'],
            in_chans=len(spec.pixel_mean), class_token=with_cls,
            global_pool='token' if with_cls else 'avg',
            pre_norm='pre_norm.weight' in vit.encoder, fc_norm=False,
            final_norm='ln1.weight' in vit.encoder), **args},
        pretrained_cfg=dict(
            input_size=[len(spec.pixel_mean), *spec.img_size], num_classes=0,
            mean=[v / 255 for v in spec.pixel_mean], std=[v / 255 for v in spec.pixel_std],
            interpolation='bicubic', crop_pct=spec.crop_ratio, first_conv='patch_embed.proj',
            classifier='head'))
    _write(folder / 'config.json', config)
    save_file({k: v.contiguous() for k, v in state.items()}, folder / 'model.safetensors',
              dict(format='pt'))


def _timm_state(vit: ViTWeights) -> tuple[dict[str, Tensor], dict[str, Any]]:
    encoder = dict(vit.encoder)
    if 'rotary.periods' in encoder:
        raise MilanError(f'{vit.source} has rotary positions, which timm\'s plain ViT has not. Use '
                         '--to onnx or --to safetensors')
    if 'ln2.weight' in encoder:
        raise MilanError(f'{vit.source} was finetuned by mean pooling. Use --to onnx with --config')
    args: dict[str, Any] = {}
    if registers_of(encoder):  # timm gives them positions too, unless there are none but patches'
        positions = encoder['pos_embed']
        if 'cls_token' in encoder:
            encoder['cls_token'] = encoder['cls_token'] + positions[:, :1]
            encoder['pos_embed'] = positions[:, 1:]
        args.update(reg_tokens=registers_of(encoder), no_embed_class=True)
    if 'layers.0.attn.gamma1.weight' in encoder:
        args['init_values'] = 1.0
    if 'layers.0.attn.qkv.bias' not in encoder:
        args['qkv_bias'] = False
    if vit.spec.quick_gelu:
        args['act_layer'] = 'quick_gelu'
    return from_ours(encoder, naming.TIMM)[0], args


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')


def upload(folder: Path, repository: str) -> str:
    """Uploads a folder with the login of huggingface_hub; gives its address.

    Raises:
        MilanError: if there is no login, no connection, or no right to write there.
    """
    try:
        from huggingface_hub import HfApi
        hub = HfApi()
        hub.create_repo(repository, exist_ok=True)
        hub.upload_folder(folder_path=str(folder), repo_id=repository)
    except Exception as error:  # of many kinds
        raise MilanError(f'{repository} could not be written ({type(error).__name__}: '
                         f'{str(error).strip().splitlines()[0][:200]}). Log in with: '
                         'huggingface-cli login') from error
    return f'https://huggingface.co/{repository}'

