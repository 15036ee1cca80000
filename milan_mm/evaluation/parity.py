# SPDX-License-Identifier: Apache-2.0
"""Does this code take the published step? One recorded step, held against the components."""
import ast
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..checkpoints.naming import to_openmmlab, to_published
from ..errors import MilanError
from ..models import MILAN
from ..models.masking import num_visible
from ..models.targets import CLIPTargetGenerator
from ..models.targets.clip_weights import tower_from_state
from ..structures import MaskIds, TeacherOutput

TOLERANCE = 1e-4


def parity_errors(path: str | Path, device: str | torch.device = 'cpu') -> dict[str, float]:
    """Runs the recorded step and compares.

    Args:
        path: a safetensors file with ``images``, ``clip.*``, ``student.*``, ``ids_shuffle``, the
            recorded ``clip_features``, ``cls_attention``, ``pred``, ``loss`` and ``grad.*``, and
            the dimensions in its metadata.

        device: where the step is taken.

    Returns:
        For each compared tensor the largest difference, relative to the recorded tensor's
        largest absolute value.

    Raises:
        MilanError: if the file is not such a recording.
    """
    tensors, meta = _read(path)
    teacher = _teacher(tensors, meta)
    milan = _student(tensors, meta, teacher).to(device)
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    masks = _recorded_masks(tensors, meta, milan.backbone.grid_size)
    milan.mask_generator = _RecordedMasks(masks)

    recorder = _Recorder(teacher, milan)
    losses = milan.loss(tensors['images'])
    losses['loss'].backward()
    recorded = {
        'features': (recorder.target.features, tensors['clip_features']),
        'importance': (recorder.target.importance, tensors['cls_attention']),
        'prediction': (masks.to_raster(recorder.pred), tensors['pred']),
        'loss': (losses['loss'], tensors['loss']),
    }
    grads = to_published({n: p.grad for n, p in milan.named_parameters() if p.requires_grad})
    expected = {k.removeprefix('grad.'): v for k, v in tensors.items() if k.startswith('grad.')}
    if set(grads) != set(expected):
        odd = sorted(set(grads) ^ set(expected))
        raise MilanError(f'{path}: recorded gradients and trained parameters differ in {odd[:4]}')
    recorded.update({f'grad {k}': (grads[k], v) for k, v in expected.items()})
    return {name: relative_error(ours, theirs) for name, (ours, theirs) in recorded.items()}


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference over the largest absolute value of ``theirs``; inf for NaN."""
    ours, theirs = ours.detach().double().reshape(-1), theirs.double().reshape(-1)
    if ours.shape != theirs.shape:
        return math.inf
    scale = theirs.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    error = ((ours - theirs).abs().max() / scale).item()
    return error if math.isfinite(error) else math.inf


class _RecordedMasks(nn.Module):
    """A mask generator that gives the recorded masks."""
    needs_importance = False

    def __init__(self, masks: MaskIds) -> None:
        super().__init__()
        self.masks = masks

    def match_student(self, grid_size: tuple[int, int]) -> None:
        """The recorded masks fit the recorded grid."""

    def forward(self, importance: Tensor, keys: Any = None) -> MaskIds:
        return self.masks


class _Recorder:
    """Keeps what teacher and decoder gave while the step ran."""
    target: TeacherOutput
    pred: Tensor

    def __init__(self, teacher: nn.Module, milan: MILAN) -> None:
        teacher.register_forward_hook(lambda _, __, out: setattr(self, 'target', out))
        milan.neck.register_forward_hook(lambda _, __, out: setattr(self, 'pred', out))


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not Path(path).is_file():
        raise MilanError(f'no such file: {path}. Expected a recorded step in safetensors')
    try:
        with safe_open(str(path), 'pt') as file:
            meta = {k: _literal(v) for k, v in (file.metadata() or {}).items()}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise MilanError(f'{path} is not a recorded step in safetensors: {error}') from error
    wanted = {'images', 'clip_features', 'cls_attention', 'ids_shuffle', 'pred', 'loss'}
    dimensions = {'enc', 'dec', 'patch', 'clip_heads'}
    lacking = sorted(wanted - set(tensors)) + sorted(dimensions - set(meta))
    if lacking:
        raise MilanError(f'{path} is not a recorded step: it lacks {lacking}')
    return tensors, meta


def _literal(text: str) -> Any:
    """Numbers and tuples of the metadata; anything else stays text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _teacher(tensors: dict[str, Tensor], meta: dict[str, Any]) -> CLIPTargetGenerator:
    weights = {k.removeprefix('clip.'): v for k, v in tensors.items() if k.startswith('clip.')}
    patch = weights['visual.conv1.weight'].shape[-1]
    # The positions of teacher and student are for the same grid.
    grid = _grid(tensors, meta)
    tower = tower_from_state(
        weights, quickgelu=True, name='the recorded teacher', num_heads=meta['clip_heads'],
        image_size=(grid[0] * patch, grid[1] * patch))
    return CLIPTargetGenerator(tower=tower)


def _student(tensors: dict[str, Tensor], meta: dict[str, Any],
             teacher: CLIPTargetGenerator) -> MILAN:
    state = {k.removeprefix('student.'): v for k, v in tensors.items() if k.startswith('student.')}
    (width, depth, heads), (dec_width, dec_depth, dec_heads) = meta['enc'], meta['dec']
    hidden = state['blocks.0.mlp.fc1.weight'].shape[0]
    dec_hidden = state['decoder_blocks.0.mlp.fc1.weight'].shape[0]
    milan = MILAN(
        backbone=dict(
            type='milan_mm.MaskedVisionTransformer',
            arch=dict(embed_dims=width, num_layers=depth, num_heads=heads,
                      feedforward_channels=hidden),
            img_size=tuple(tensors['images'].shape[-2:]),
            patch_size=meta['patch']),
        neck=dict(
            type='milan_mm.PromptingDecoder',
            decoder_embed_dim=dec_width, decoder_depth=dec_depth, decoder_num_heads=dec_heads,
            mlp_ratio=dec_hidden / dec_width),
        head=dict(type='milan_mm.ReconstructionHead',
                  loss=dict(type='milan_mm.CosineReconstructionLoss')),
        target_generator=teacher,
        mask_generator=dict(type='milan_mm.SemanticMaskGenerator',
                            mask_ratio=float(meta.get('mask_ratio', 0.75))))
    own = milan.state_dict()
    state = to_openmmlab(state)
    for key in ('backbone.pos_embed', 'neck.decoder_pos_embed'):
        state.setdefault(key, own[key])
        if relative_error(own[key], state[key]) > TOLERANCE:
            print(f'note: the recorded {key} is not this grid\'s sine-cosine embedding; the step '
                  'is taken with the recorded one')
    milan.load_state_dict(state, strict=True)
    return milan


def _grid(tensors: dict[str, Tensor], meta: dict[str, Any]) -> tuple[int, int]:
    height, width = tensors['images'].shape[-2:]
    return height // meta['patch'], width // meta['patch']


def _recorded_masks(tensors: dict[str, Tensor], meta: dict[str, Any],
                    grid: tuple[int, int]) -> MaskIds:
    patches = grid[0] * grid[1]
    visible = num_visible(patches, float(meta.get('mask_ratio', 0.75)))
    if visible != int(meta.get('keep', visible)):
        raise MilanError(f'recorded with {meta["keep"]} visible patches of {patches}, this code '
                         f'would show {visible}')
    ids = tensors['ids_shuffle'].long()
    return MaskIds(ids[:, :visible], ids[:, visible:])
