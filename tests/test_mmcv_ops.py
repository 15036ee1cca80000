# SPDX-License-Identifier: Apache-2.0
"""NMS, RoIAlign and pasted masks without a compiled mmcv, against formulas written out here."""
import importlib
import inspect
import math
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import torchvision
from conftest import ROOT

from milan_mm.compat import mmcv_ops
from milan_mm.doctor import checks as doctor
from milan_mm.errors import MilanError

stood_in = pytest.mark.skipif(not mmcv_ops.stand_ins(), reason='this mmcv has compiled ops')


def bilinear(plane, y, x):
    """A plane (..., H, W) at a point; nothing beyond one pixel outside, the border's value until
    there."""
    height, width = plane.shape[-2:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return plane[..., 0, 0] * 0
    y, x = (min(max(v, 0.), n - 1.) for v, n in ((y, height), (x, width)))
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    return ((1 - dy) * (1 - dx) * plane[..., top, left] + (1 - dy) * dx * plane[..., top, right]
            + dy * (1 - dx) * plane[..., bottom, left] + dy * dx * plane[..., bottom, right])


def plain_roi_align(features, rois, size, scale, ratio, aligned):
    """RoIAlign (arXiv 1703.06870, Sec. 3) sample by sample; autograd gives its gradient."""
    out = []
    for index, *box in rois.tolist():
        x1, y1, x2, y2 = (v * scale - (.5 if aligned else 0) for v in box)
        height, width = y2 - y1, x2 - x1
        if not aligned:  # at least one pixel
            height, width = max(height, 1.), max(width, 1.)
        rows = ratio or math.ceil(height / size[0])
        columns = ratio or math.ceil(width / size[1])
        for i in range(size[0]):
            for j in range(size[1]):
                samples = [
                    bilinear(features[int(index)], y1 + (i + (k + .5) / rows) * height / size[0],
                             x1 + (j + (m + .5) / columns) * width / size[1])
                    for k in range(rows) for m in range(columns)]
                out.append(torch.stack(samples).mean(0))
    return torch.stack(out).view(len(rois), *size, -1).permute(0, 3, 1, 2)


@pytest.fixture
def features():
    return torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()


# whole, across the border, less than a pixel, wholly outside, wide and flat
ROIS = torch.tensor([[0, 2., 1., 30., 25.], [1, -9., -5., 20., 40.], [1, 8., 8., 9.1, 8.7],
                     [0, 80., 70., 90., 99.], [1, 0., 11., 36., 13.]])


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('scale', [.25, .125])
def test_roi_align_and_its_gradient(features, aligned, ratio, scale):
    from mmcv.ops import RoIAlign, roi_align
    out = roi_align(features, ROIS, (2, 3), scale, ratio, 'avg', aligned)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    gradient, = torch.autograd.grad((out * weights).sum(), features)
    exact = features.detach().double().requires_grad_()
    plain = plain_roi_align(exact, ROIS, (2, 3), scale, ratio, aligned)
    plain_gradient, = torch.autograd.grad((plain * weights).sum(), exact)
    torch.testing.assert_close(out, plain.float(), rtol=0, atol=2e-6)
    torch.testing.assert_close(gradient, plain_gradient.float(), rtol=0, atol=2e-6)
    assert out[0].abs().min() > 1e-3 and (out[3] == 0).all() and gradient.abs().max() > .1
    theirs = torchvision.ops.roi_align(features, ROIS, (2, 3), scale, ratio, aligned)
    assert torch.equal(out, theirs)
    assert torch.equal(gradient, torch.autograd.grad((theirs * weights).sum(), features)[0])
    layer = RoIAlign((2, 3), scale, ratio, aligned=aligned)
    assert torch.equal(layer(features, ROIS), out)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@stood_in
def test_roi_align_in_half_precision(features, dtype):
    from mmcv.ops import roi_align
    half, rois = features.detach().to(dtype).requires_grad_(), ROIS.round().to(dtype)
    out = roi_align(half, rois, (2, 3), .25, 2, 'avg', True)
    gradient, = torch.autograd.grad(out.sum(), half)
    assert out.dtype == gradient.dtype == dtype
    exact = half.detach().double().requires_grad_()
    plain = plain_roi_align(exact, rois, (2, 3), .25, 2, True)
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), plain, rtol=step, atol=step / 8)
    torch.testing.assert_close(
        gradient.double(), torch.autograd.grad(plain.sum(), exact)[0], rtol=step, atol=step / 8)


def test_no_rois(features):
    from mmcv.ops import roi_align
    out = roi_align(features, torch.zeros(0, 5), 7, .25, 0, 'avg', True)
    assert out.shape == (0, 3, 7, 7)
    assert (torch.autograd.grad(out.sum(), features)[0] == 0).all()


def test_roi_align_passes_gradcheck(features):
    from mmcv.ops import roi_align
    assert torch.autograd.gradcheck(
        lambda x: roi_align(x, ROIS.double(), (2, 2), .25, 0, 'avg', True),
        features.detach().double().requires_grad_())


def iou(a, b, offset=0):
    sides = [max(0., min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + offset) for i in (0, 1)]
    areas = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
    union = sum(areas) - sides[0] * sides[1]
    return sides[0] * sides[1] / union if union else 0.


def plain_nms(boxes, scores, threshold, offset=0):
    boxes, scores, kept = boxes.tolist(), scores.tolist(), []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):  # stable: ties stay in order
        if all(iou(boxes[k], boxes[i], offset) <= threshold for k in kept):
            kept.append(i)
    return kept


def plain_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    boxes, scores, left, kept = boxes.tolist(), scores.tolist(), list(range(len(boxes))), []
    while left:
        best = max(left, key=lambda i: (scores[i], -i))
        kept.append((best, scores[best]))
        left.remove(best)
        for i in list(left):
            overlap = iou(boxes[best], boxes[i], offset)
            if method == 'gaussian':
                scores[i] *= math.exp(-overlap**2 / sigma)
            elif overlap >= threshold:
                scores[i] *= 1 - overlap if method == 'linear' else 0
            if scores[i] < min_score:
                left.remove(i)
    return kept


def random_boxes(count, seed):
    """Boxes on whole pixels, many scores equal, one box twice, and one without area twice."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 40, (count, 2), generator=generator).float()
    sides = torch.randint(5, 25, (count, 2), generator=generator).float()
    boxes = torch.cat([corners, corners + sides], 1)
    boxes[1], boxes[2, 2:] = boxes[0], boxes[2, :2]
    boxes[3] = boxes[2]
    return boxes, torch.randint(1, 10, (count, ), generator=generator) / 10


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [.123, .345, .567])  # no fraction of whole pixels
@stood_in
def test_nms(threshold, offset):
    from mmcv.ops import nms
    for seed in range(5):
        boxes, scores = random_boxes(40, seed)
        dets, kept = nms(boxes, scores, threshold, offset)
        assert kept.tolist() == plain_nms(boxes, scores, threshold, offset)
        assert 1 < len(kept) < 40
        assert torch.equal(dets, torch.cat([boxes, scores[:, None]], 1)[kept])
    _, few = nms(boxes, scores, threshold, offset, score_threshold=.45, max_num=3)
    sure = (scores > .45).nonzero()[:, 0]
    best = plain_nms(boxes[sure], scores[sure], threshold, offset)[:3]
    assert few.tolist() == sure[best].tolist()


def test_nms_at_the_threshold_and_in_other_types():
    from mmcv.ops import nms
    boxes = torch.tensor([[0., 0., 4., 4.], [0., 0., 4., 2.], [0., 0., 4., 4.]])  # IoU 1/2, 1, 1/2
    scores = torch.tensor([.5, .5, .5])
    assert nms(boxes, scores, .5)[1].tolist() == [0, 1]
    assert nms(boxes, scores, .49)[1].tolist() == [0]
    dets, kept = nms(boxes.numpy(), scores.numpy(), .5)
    assert isinstance(dets, np.ndarray) and kept.tolist() == [0, 1]
    dets, kept = nms(torch.zeros(0, 4), torch.zeros(0), .5)
    assert dets.shape == (0, 5) and kept.shape == (0, ) and kept.dtype == torch.int64


@stood_in
def test_nms_in_half_precision():
    from mmcv.ops import nms
    boxes, scores = random_boxes(30, 0)
    for dtype in (torch.float16, torch.float64):
        dets, kept = nms(boxes.to(dtype), scores, .5)  # scores in another type, as under autocast
        assert kept.tolist() == plain_nms(boxes, scores, .5)
        assert torch.equal(dets[:, :4].float(), boxes[kept])


@pytest.mark.parametrize('split_thr', [10000, 1])
def test_batched_nms(split_thr):
    from mmcv.ops import batched_nms
    boxes, scores = random_boxes(60, 3)
    classes = torch.arange(60) % 3
    config = dict(type='nms', iou_threshold=.3, split_thr=split_thr)
    dets, kept = batched_nms(boxes, scores, classes, config)
    expected = sorted(
        (members[i] for members in ((classes == c).nonzero()[:, 0] for c in range(3))
         for i in plain_nms(boxes[members], scores[members], .3)),
        key=lambda i: (-scores[i], i))
    assert sorted(kept.tolist()) == sorted(int(i) for i in expected)
    assert dets[:, 4].tolist() == [float(scores[i]) for i in expected]
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], 1)[kept])
    _, kept = batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=.3), True)
    assert kept.tolist() == plain_nms(boxes, scores, .3)
    dets, kept = batched_nms(
        torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), dict(type='nms', iou_threshold=.3),
        class_agnostic=True)
    assert dets.shape == (0, 5) and kept.shape == (0, )


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
@stood_in
def test_soft_nms(method, offset):
    from mmcv.ops import batched_nms, soft_nms
    for seed in range(4):
        boxes, scores = random_boxes(30, seed)
        expected = plain_soft_nms(boxes, scores, .3, .5, .05, method, offset)
        dets, kept = soft_nms(boxes, scores, .3, .5, .05, method, offset)
        assert kept.tolist() == [i for i, _ in expected] and 1 < len(kept)
        assert dets[:, 4].tolist() == pytest.approx([score for _, score in expected], abs=1e-6)
        assert torch.equal(dets[:, :4], boxes[kept])
        assert method == 'naive' or (dets[:, 4] < scores[kept] - .01).any()
    dets, kept = soft_nms(torch.zeros(0, 4), torch.zeros(0), method=method, offset=offset)
    assert dets.shape == (0, 5) and kept.shape == (0, )
    config = dict(type='soft_nms', iou_threshold=.3, min_score=.05, method=method, offset=offset)
    dets, kept = batched_nms(boxes, scores, torch.zeros(30), config)
    assert kept.tolist() == [i for i, _ in expected]


@stood_in
def test_soft_nms_of_ties():
    from mmcv.ops import soft_nms
    boxes = torch.tensor([[0., 0., 4., 4.], [9., 0., 13., 4.], [0., 0., 4., 4.], [9., 0., 13., 2.]])
    scores = torch.tensor([.6, .6, .6, .6])
    dets, kept = soft_nms(boxes, scores, .3, min_score=.01)
    # The third lies on the first and goes; the fourth covers half of the second.
    assert kept.tolist() == [0, 1, 3]
    assert dets[:, 4].tolist() == pytest.approx([.6, .6, .3])
    # All below the least score: the best is given nevertheless, as by mmcv's own.
    assert soft_nms(boxes, scores / 1e4, .3, min_score=.01)[1].tolist() == [0]


def test_training_targets_of_masks():
    """mmdet crops the true masks with RoIAlign."""
    from mmdet.structures.mask import BitmapMasks
    masks = np.zeros((2, 20, 24), np.uint8)
    masks[0, 4:15, 3:18] = masks[1, 10:, 12:] = 1
    boxes = torch.tensor([[2., 3., 20., 17.], [9.5, 6., 24., 20.], [0., 0., 5., 5.]])
    order = torch.tensor([0, 1, 0])
    cropped = BitmapMasks(masks, 20, 24).crop_and_resize(boxes, (6, 5), order, binarize=False)
    planes = torch.from_numpy(masks[order.numpy()]).double()[:, None]
    rois = torch.cat([torch.arange(3.)[:, None], boxes], 1)
    expected = plain_roi_align(planes, rois, (6, 5), 1., 0, True)[:, 0]
    np.testing.assert_allclose(cropped.masks, expected.numpy(), atol=2e-6)
    assert 0 < cropped.masks.mean() < 1


@pytest.mark.parametrize('rescale', [True, False])
def test_pasted_masks(rescale):
    """A predicted mask, 4 x 4, in its box, read at each pixel's centre; half and more is inside."""
    from mmdet.models import FCNMaskHead
    from mmengine.config import ConfigDict
    from mmengine.registry import DefaultScope
    from mmengine.structures import InstanceData
    logits = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 3
    boxes = torch.tensor([[3., 2., 15., 14.], [-4.2, 5.1, 9.7, 25.3], [10., 4., 13., 22.]])
    labels = torch.tensor([1, 0, 1])
    with DefaultScope.overwrite_default_scope('mmdet'):  # where the head looks its loss up
        head = FCNMaskHead(num_convs=1, in_channels=4, conv_out_channels=4, num_classes=2)
    meta = dict(scale_factor=(1., 1.) if rescale else (1., .5), ori_shape=(20, 18),
                img_shape=(20, 18))
    result, = head.predict_by_feat(
        [logits], [InstanceData(bboxes=boxes, labels=labels)], [meta],
        ConfigDict(mask_thr_binary=.5), rescale=rescale)
    height = 20 if rescale else 10  # not rescaled, mmdet pastes into the scaled image
    assert result.masks.shape == (3, height, 18) and result.masks.dtype == torch.bool
    for mask, box, logit, label in zip(result.masks, boxes.tolist(), logits, labels):
        plane = torch.nn.functional.pad(logit[label].sigmoid().double(), (1, 1, 1, 1))
        for y in range(height):
            for x in range(18):
                v = (y + .5 - box[1]) / (box[3] - box[1]) * 4 + .5
                u = (x + .5 - box[0]) / (box[2] - box[0]) * 4 + .5
                inside = float(bilinear(plane, v, u)) if 0 <= u <= 5 and 0 <= v <= 5 else 0.
                assert abs(inside - .5) < 1e-5 or bool(mask[y, x]) == (inside >= .5), (y, x)
        assert 0 < mask.sum() < mask.numel()


@stood_in
def test_other_ops_say_how_to_get_them(features):
    from mmcv.ops import ModulatedDeformConv2dPack, roi_align, sigmoid_focal_loss
    for call, name in (
            (lambda: ModulatedDeformConv2dPack(3, 4, 3)(features), 'modulated_deform_conv_forward'),
            (lambda: sigmoid_focal_loss(torch.zeros(2, 3), torch.zeros(2).long(), 2., .25, None,
                                        'mean'), 'sigmoid_focal_loss_forward')):
        with pytest.raises(MilanError, match=f'the op {name} of mmcv .* nms.*MMCV_WITH_OPS=1'):
            call()
    with pytest.raises(MilanError, match="pool_mode='max'.*set pool_mode='avg'"):
        roi_align(features, ROIS, 2, .25, 0, 'max', True)


@stood_in
def test_it_looks_like_a_module():
    module = importlib.import_module('mmcv._ext')
    assert not hasattr(module, '__wrapped__') and not hasattr(module, '__path__')
    assert inspect.unwrap(module) is module and 'milan_mm' in repr(module)
    assert importlib.util.find_spec('mmcv._ext').name == 'mmcv._ext'
    mmcv_ops.install()
    assert importlib.import_module('mmcv._ext') is module
    from mmcv.utils import collect_env
    assert collect_env()['MMCV Compiler'] == 'not compiled'


@stood_in
def test_the_doctor_tells():
    check, = doctor.check_mmcv_ops()
    assert check.status == 'ok' and 'roi_align_forward' in check.detail
    assert 'not compiled' in check.detail and 'torchvision' in check.detail


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', textwrap.dedent(code), *map(str, arguments)],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stdout[-3000:]


@stood_in
def test_strangers_are_left_alone_and_late_is_not_too_late():
    """mmpretrain imports mmdet if it can, and in onedl's every op that lacks becomes an error."""
    run("""
        import sys
        from importlib.util import find_spec
        import mmcv, mmcv.cnn, mmpretrain.models
        assert 'mmcv._ext' not in sys.modules and find_spec('mmcv._ext') is None
        assert 'mmcv.ops' not in sys.modules
        import milan_mm
        from milan_mm.compat.mmcv_ops import stand_ins
        assert stand_ins() == ('nms', 'roi_align_backward', 'roi_align_forward', 'softnms')
        assert 'mmseg' not in sys.modules
        import mmcv.ops, mmdet.models, mmseg.models
        from mmcv.cnn.bricks.transformer import MultiScaleDeformableAttention
        from mmdet.models.dense_heads import rpn_head
        from mmdet.models.losses import focal_loss
        from mmdet.structures.mask import structures
        assert MultiScaleDeformableAttention is mmcv.ops.MultiScaleDeformableAttention
        assert rpn_head.batched_nms is mmcv.ops.batched_nms
        assert focal_loss._sigmoid_focal_loss == mmcv.ops.sigmoid_focal_loss
        assert focal_loss.sigmoid_focal_loss.__module__ == focal_loss.__name__  # mmdet's own stays
        assert structures.roi_align == mmcv.ops.roi_align
        """)


def test_a_compiled_mmcv_wins(tmp_path):
    (tmp_path / '_ext.py').write_text(textwrap.dedent("""
        def nms(*args, **kwargs):
            return 'compiled'

        def __getattr__(name):
            if name.startswith('__'):
                raise AttributeError(name)
            return nms
        """))
    run("""
        import sys
        import mmcv
        mmcv.__path__.insert(0, sys.argv[1])
        import milan_mm
        from milan_mm.compat.mmcv_ops import install, stand_ins
        install()
        assert stand_ins() == ()
        from mmcv.ops.nms import ext_module
        assert ext_module.__file__.startswith(sys.argv[1]) and ext_module.nms() == 'compiled'
        from milan_mm.doctor import checks as doctor
        check, = doctor.check_mmcv_ops()
        assert check.detail == 'compiled: 1 functions' and check.status == 'ok', check
        """, tmp_path)
