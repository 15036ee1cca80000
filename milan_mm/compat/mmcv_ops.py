# SPDX-License-Identifier: Apache-2.0
"""Neither onedl-mmcv 2.3.6 nor mmcv-lite 2.1.0 has mmcv's compiled ops, which mmdet asks for.

Without the module ``mmcv._ext`` no part of ``mmcv.ops`` can be imported, and with it neither mmdet
nor mmseg. Where there is no such module, one is put in its place: NMS and RoIAlign are computed by
torchvision's kernels (the same formulas, on CPU and CUDA), Soft-NMS by torch, and every other op
is an error when it is called. A compiled mmcv is never touched.

RoIAlign's gradient is an operator that torchvision has no public name for
(``torch.ops.torchvision._roi_align_backward``; tried with 0.20 and 0.29).
"""
import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
import torchvision
from torch import Tensor

from ..errors import MilanError

_NAME = 'mmcv._ext'


def install() -> None:
    """Puts the stand-ins where ``mmcv._ext`` is missing; safe to call again."""
    if _NAME in sys.modules or importlib.util.find_spec(_NAME) is not None:
        return
    module = _StandIns(_NAME, 'Stand-ins of milan_mm for the compiled ops of mmcv.')
    # Whoever looks for the module by ``find_spec`` gets an error if a loaded one has no spec.
    module.__spec__ = ModuleSpec(_NAME, None, origin=__name__)
    mmcv: Any = sys.modules['mmcv']
    sys.modules[_NAME] = mmcv._ext = module
    _mend_loaded()


def stand_ins() -> tuple[str, ...]:
    """Names of the ops stood in for; empty where mmcv's own are there."""
    return tuple(sorted(_OPS)) if isinstance(sys.modules.get(_NAME), _StandIns) else ()


class _StandIns(ModuleType):
    """In place of ``mmcv._ext``, which mmcv asks for more than a hundred functions."""

    def __getattr__(self, name: str) -> Callable:
        if name.startswith('__'):  # ``inspect`` asks any module for such names
            raise AttributeError(f'module {_NAME!r} has no attribute {name!r}')
        return _SERVED.get(name) or _missing(name)


def _missing(name: str) -> Callable:

    def missing(*args: Any, **kwargs: Any) -> None:
        raise MilanError(
            f'the op {name} of mmcv is not compiled here, and milan_mm stands in for '
            f'{", ".join(sorted(_OPS))} only. {_REMEDY}')

    missing.__name__ = name
    return missing


_REMEDY = (
    f'Install an mmcv with compiled ops, built for torch {torch.__version__}: where OpenMMLab has '
    'one for this torch, pip uninstall -y mmcv-lite && mim install mmcv; otherwise from its '
    'source, with MMCV_WITH_OPS=1 and a C++ compiler')


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Non-maximum suppression; of equal scores the earlier box comes first.

    Args:
        boxes: (N, 4) x1, y1, x2, y2.
        scores: (N, ).
        iou_threshold: boxes that overlap a better one by more than this are left out.
        offset: 0, or 1 where x2 and y2 are the last pixels inside.

    Returns:
        Indices of those kept, best first.
    """
    boxes = _wide(boxes)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes, scores.to(boxes.dtype), iou_threshold)


def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float,
            min_score: float, method: int, offset: int) -> Tensor:
    """Soft-NMS (Bodla et al., arXiv 1704.04503): overlapping boxes lose score instead of going.

    Of equal scores the earlier box comes first. The best box stays, however low its score.

    Args:
        boxes: (N, 4) x1, y1, x2, y2.
        scores: (N, ).
        dets: (N, 5), receives boxes and lowered scores in the order they were chosen.
        iou_threshold: overlap from which a score is lowered, but for ``method`` 2.
        sigma: width of the Gaussian.
        min_score: boxes whose score falls below it go.
        method: 0 sets the score to zero, 1 multiplies it by 1 - IoU, 2 by exp(-IoU^2 / sigma).
        offset: see :func:`nms`.

    Returns:
        Indices of those kept, in the order they were chosen.
    """
    scores, left = scores.clone(), torch.arange(len(boxes))
    kept: list[Tensor] = []
    sized = boxes + boxes.new_tensor([0, 0, offset, offset])
    while len(left):
        first = scores[left].argmax()
        best = left[first]
        dets[len(kept)] = torch.cat([boxes[best], scores[best, None]])
        kept.append(best)
        left = torch.cat([left[:first], left[first + 1:]])
        iou = torchvision.ops.box_iou(sized[best, None], sized[left])[0].nan_to_num(0.)
        if method == 2:
            weight = torch.exp(-iou**2 / sigma)
        else:
            weight = torch.where(iou >= iou_threshold, 1 - iou if method == 1 else 0., 1.)
        scores[left] *= weight
        left = left[scores[left] >= min_score]
    return torch.stack(kept) if kept else left


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor,
                      argmax_x: Tensor, aligned_height: int, aligned_width: int,
                      spatial_scale: float, sampling_ratio: int, pool_mode: int,
                      aligned: bool) -> None:
    """RoIAlign by averages, in float32 at least.

    Args:
        input: (B, C, H, W).
        rois: (R, 5) index into the batch, x1, y1, x2, y2 in pixels of the image.
        output: (R, C, aligned_height, aligned_width), receives the result.
        argmax_y, argmax_x: of pooling by maxima; not used.
        aligned_height, aligned_width: bins of a RoI.
        spatial_scale: from the image to ``input``.
        sampling_ratio: samples a bin and direction; 0 for as many as it has pixels.
        pool_mode: 1 for averages.
        aligned: whether pixel centres lie at half numbers.

    Raises:
        MilanError: for pooling by maxima.
    """
    _check_mode(pool_mode)
    output.copy_(torch.ops.torchvision.roi_align(
        _wide(input), _wide(rois), spatial_scale, aligned_height, aligned_width, sampling_ratio,
        aligned))


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                       grad_input: Tensor, aligned_height: int, aligned_width: int,
                       spatial_scale: float, sampling_ratio: int, pool_mode: int,
                       aligned: bool) -> None:
    """Gradient of :func:`roi_align_forward`; ``grad_input`` receives it."""
    _check_mode(pool_mode)
    grad_input.copy_(torch.ops.torchvision._roi_align_backward(
        _wide(grad_output), _wide(rois), spatial_scale, aligned_height, aligned_width,
        *grad_input.shape, sampling_ratio, aligned))


def _check_mode(pool_mode: int) -> None:
    if pool_mode != 1:
        raise MilanError("RoIAlign with pool_mode='max' is not compiled here, and torchvision, "
                         f"which stands in, knows averages only: set pool_mode='avg'. {_REMEDY}")


def _wide(x: Tensor) -> Tensor:
    """float32 for the half types, which the CPU's kernels lack in part; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _not_compiled() -> str:
    return 'not compiled'


_OPS: dict[str, Callable] = dict(
    nms=nms, softnms=softnms, roi_align_forward=roi_align_forward,
    roi_align_backward=roi_align_backward)
# mmcv.utils.collect_env puts these into its table once mmcv.ops can be imported.
_SERVED = dict(_OPS, get_compiler_version=_not_compiled, get_compiling_cuda_version=_not_compiled)


def _mend_loaded() -> None:
    """Gives the ops to modules that were imported before, and have done without since then.

    mmcv.cnn takes an attention over from mmcv.ops, from where mmdet 3.3.0 imports it. mmdet 3.5 of
    onedl puts functions that only raise where an import from mmcv.ops fails, mmseg puts None.
    """
    transformer: Any = sys.modules.get('mmcv.cnn.bricks.transformer')
    if transformer is None:
        return
    ops = importlib.import_module('mmcv.ops')
    transformer.MultiScaleDeformableAttention = ops.MultiScaleDeformableAttention
    for key, module in list(sys.modules.items()):
        if key.partition('.')[0] in ('mmdet', 'mmseg'):
            for name, value in list(vars(module).items()):
                if name.lstrip('_') in ops.__all__ and _is_gap(value):
                    setattr(module, name, getattr(ops, name.lstrip('_')))


def _is_gap(value: Any) -> bool:
    """Whether a value only says that an op is missing."""
    if value is None:
        return True
    function = value.__init__ if isinstance(value, type) else value  # type: ignore[misc]
    constants = getattr(getattr(function, '__code__', None), 'co_consts', ())
    return any('requires mmcv to be compiled' in c for c in constants if isinstance(c, str))
