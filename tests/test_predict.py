# SPDX-License-Identifier: Apache-2.0
"""tools/predict.py on small models of all three tasks."""
import json

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_VIT, run_tool
from mmengine.config import Config
from PIL import Image

from milan_mm.cli.main import parse
from milan_mm.drawing.predictions import Instance, draw_detection
from milan_mm.errors import MilanError
from milan_mm.inference.tasks import build_model, load_task_model

NAMES = ('Äpfel', 'Birnen', 'ein sehr langer Name, der in keine Zeile passt, auch in diese nicht')
VIT = dict(type='milan_mm.MaskedVisionTransformer', arch=TINY_VIT, img_size=32, patch_size=8,
           init_cfg=dict(type='milan_mm.PretrainedViT', checkpoint='/no/longer/there.pth'))
PIXELS = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])

CLASSIFIER = dict(
    default_scope='mmpretrain',
    model=dict(
        type='mmpretrain.ImageClassifier', backbone=dict(VIT, out_type='cls_token'),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=None, in_channels=48)),
    data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor', num_classes=None, **PIXELS),
    test_dataloader=dict(dataset=dict(type='milan_mm.ImageFolder', data_root='.', pipeline=[
        dict(type='milan_mm.LoadPILImage'),
        dict(type='milan_mm.ResizeAndCenterCrop', size=32),
        dict(type='milan_mm.PackImageInputs')])))

SEGMENTOR = dict(
    default_scope='mmseg',
    model=dict(
        type='mmseg.EncoderDecoder', backbone=dict(VIT, out_type='featmap'),
        data_preprocessor=dict(type='mmseg.SegDataPreProcessor', bgr_to_rgb=True, **PIXELS),
        decode_head=dict(type='mmseg.FCNHead', in_channels=48, channels=8, num_convs=1,
                         num_classes=3, in_index=0, norm_cfg=dict(type='SyncBN')),
        test_cfg=dict(mode='whole')),
    test_dataloader=dict(dataset=dict(type='mmseg.BaseSegDataset', pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='mmseg.Resize', scale=(64, 32), keep_ratio=False),
        dict(type='mmseg.LoadAnnotations'),
        dict(type='mmseg.PackSegInputs')])))

_BOXES = dict(bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder'))
DETECTOR = dict(
    default_scope='mmdet',
    model=dict(
        type='mmdet.MaskRCNN', backbone=dict(VIT, out_type='featmap'),
        data_preprocessor=dict(type='mmdet.DetDataPreprocessor', bgr_to_rgb=True, **PIXELS),
        neck=dict(type='mmdet.FPN', in_channels=[48], out_channels=16, num_outs=2),
        rpn_head=dict(
            type='mmdet.RPNHead', in_channels=16, feat_channels=16,
            anchor_generator=dict(type='mmdet.AnchorGenerator', scales=[2], ratios=[1.],
                                  strides=[8, 16]), **_BOXES),
        roi_head=dict(
            type='mmdet.StandardRoIHead',
            bbox_roi_extractor=dict(
                type='mmdet.SingleRoIExtractor', out_channels=16, featmap_strides=[8],
                roi_layer=dict(type='RoIAlign', output_size=7)),
            bbox_head=dict(type='mmdet.Shared2FCBBoxHead', in_channels=16, fc_out_channels=16,
                           num_classes=3, **_BOXES),
            mask_roi_extractor=dict(
                type='mmdet.SingleRoIExtractor', out_channels=16, featmap_strides=[8],
                roi_layer=dict(type='RoIAlign', output_size=14)),
            mask_head=dict(type='mmdet.FCNMaskHead', num_convs=1, in_channels=16,
                           conv_out_channels=16, num_classes=3)),
        train_cfg=None,
        test_cfg=dict(
            rpn=dict(nms_pre=50, max_per_img=20, nms=dict(type='nms', iou_threshold=.7),
                     min_bbox_size=0),
            rcnn=dict(score_thr=.05, nms=dict(type='nms', iou_threshold=.5), max_per_img=6,
                      mask_thr_binary=.5))),
    test_dataloader=dict(dataset=dict(type='mmdet.CocoDataset', pipeline=[
        dict(type='milan_mm.LoadBGRImage'),
        dict(type='mmdet.Resize', scale=(64, 64), keep_ratio=True),
        dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='mmdet.PackDetInputs')])))
CONFIGS = dict(classification=CLASSIFIER, detection=DETECTOR, segmentation=SEGMENTOR)


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Two images of the same name, one that is broken, in a folder with an umlaut."""
    folder = tmp_path_factory.mktemp('Bilder für alle')
    rng = np.random.default_rng(0)
    for i, name in enumerate(('Größe.png', 'unten/Größe.png')):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        blocks = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((100 + 20 * i, 80), 0).save(path)
    (folder / 'kaputt.png').write_bytes(b'\x89PNG no more')
    return folder


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """For each task a config file and a checkpoint as a training leaves them, random weights."""
    made = {}

    def make(task):
        if task not in made:
            if task != 'classification':
                pytest.importorskip({'detection': 'mmdet', 'segmentation': 'mmseg'}[task])
            folder = tmp_path_factory.mktemp(task)
            cfg = Config(CONFIGS[task])
            cfg.dump(folder / 'config.py')
            torch.manual_seed(0)
            model = build_model(cfg, NAMES)
            torch.nn.init.normal_(model.get_parameter('backbone.pos_embed'), std=.5)
            torch.save(dict(state_dict=model.state_dict(), meta=dict(
                dataset_meta=dict(classes=NAMES))), folder / 'last.pth')
            made[task] = (folder / 'config.py', folder / 'last.pth')
        return made[task]

    return make


def run(*arguments):
    args = parse(['predict', *arguments])
    return args.run(args)


def run_on(trained, images, out, *more):
    assert run(*trained, images, '--out', out, '--device', 'cpu', *more) == 0
    report = json.loads((out / 'predictions.json').read_text(encoding='utf-8'))
    assert [p['file'] for p in report['images']] == [
        str(images / 'Größe.png'), str(images / 'unten/Größe.png')]
    assert [p['annotated'] for p in report['images']] == ['Größe.png', 'Größe_2.png']
    assert [(p['width'], p['height']) for p in report['images']] == [(100, 80), (120, 80)]
    assert [u['file'] for u in report['unreadable']] == [str(images / 'kaputt.png')]
    assert report['classes'] == list(NAMES)
    for told in report['images']:
        drawn = Image.open(out / told['annotated']).convert('RGB')
        before = Image.open(told['file']).convert('RGB')
        factor = round(448 / told['width'] + .5)  # small images are enlarged
        before = before.resize((factor * told['width'], factor * told['height']), 3)
        assert drawn.height >= before.height and drawn.width >= before.width
        assert drawn.size != before.size or (np.asarray(drawn) != np.asarray(before)).any()
    return report


def test_classification(trained, images, tmp_path):
    config, checkpoint = trained('classification')
    report = run_on((config, checkpoint), images, tmp_path, '--topk', 2)
    assert report['task'] == 'classification'
    model = load_task_model(Config.fromfile(config), checkpoint)
    for told in report['images']:
        scores = model(Image.open(told['file']).convert('RGB')).pred_score
        best = scores.argsort(descending=True)[:2].tolist()
        assert [p['label'] for p in told['predictions']] == best
        assert [p['class'] for p in told['predictions']] == [NAMES[i] for i in best]
        assert [p['score'] for p in told['predictions']] == pytest.approx(
            scores[best].tolist(), abs=1e-6)
    # the bars: paper at the right of the image, ink on it
    drawn = np.asarray(Image.open(tmp_path / 'Größe.png').convert('L'))
    panel = drawn[:, 500:]
    assert panel.shape[1] == 300 and (panel == 255).mean() > .7 and (panel < 60).sum() > 100


def test_detection(trained, images, tmp_path):
    config, checkpoint = trained('detection')
    report = run_on((config, checkpoint), images, tmp_path, '--score-thr', .05)
    from mmdet.apis import inference_detector
    from pycocotools import mask as coco_mask
    cfg = Config.fromfile(config)
    model = load_task_model(cfg, checkpoint).model
    model.cfg = cfg
    for told in report['images']:
        pixels = np.asarray(Image.open(told['file']).convert('RGB'))[..., ::-1]
        found = inference_detector(model, np.ascontiguousarray(pixels)).pred_instances
        assert len(told['instances']) == len(found) > 0
        for one, box, score, label, mask in zip(told['instances'], found.bboxes, found.scores,
                                                found.labels, found.masks):
            assert one['box'] == pytest.approx(box.tolist(), abs=.006)
            assert one['score'] == pytest.approx(score.item(), abs=1e-6)
            assert (one['label'], one['class']) == (label, NAMES[label])
            assert one['mask']['size'] == [told['height'], told['width']]
            assert (coco_mask.decode(one['mask']) == mask.cpu().numpy()).all()
        left, top, right, bottom = np.array([i['box'] for i in told['instances']]).T
        assert left.min() >= 0 and right.max() <= told['width'] and bottom.max() <= told['height']
        assert right.max() > 64  # pixels of the image, not of the network's input


def test_segmentation(trained, images, tmp_path):
    config, checkpoint = trained('segmentation')
    report = run_on((config, checkpoint), images, tmp_path)
    from mmseg.apis import inference_model
    cfg = Config.fromfile(config)
    model = load_task_model(cfg, checkpoint).model
    cfg.test_pipeline = [t for t in cfg.test_dataloader.dataset.pipeline
                         if 'Annotations' not in t.type]
    model.cfg = cfg
    for told in report['images']:
        labels = np.asarray(Image.open(tmp_path / told['labels']))
        assert labels.shape == (told['height'], told['width']) and labels.dtype == np.uint8
        pixels = np.asarray(Image.open(told['file']).convert('RGB'))[..., ::-1]
        expected = inference_model(model, np.ascontiguousarray(pixels)).pred_sem_seg.data[0]
        assert (labels == expected.numpy()).all()
        assert sum(s['share'] for s in told['shares']) == pytest.approx(1, abs=1e-5)
        for share in told['shares']:
            assert share['class'] == NAMES[share['label']]
            assert share['share'] == pytest.approx((labels == share['label']).mean(), abs=1e-6)


def test_command_line(trained, images, tmp_path, capsys):
    """One image that can be read and one that cannot; then none at all."""
    files = trained('classification')
    out = run_tool('predict.py', *files, images / 'Größe.png', images / 'kaputt.png', '--out',
                   tmp_path, '--device', 'cpu', '--topk', 2)
    assert 'left out: cannot decode' in out and 'kaputt.png' in out
    assert '1 of 2 images' in out and '1 could not be read' in out
    assert run(*files, images / 'kaputt.png', '--out', tmp_path, '--device', 'cpu') == 1
    assert '0 of 1 images' in capsys.readouterr().out
    assert json.loads((tmp_path / 'predictions.json').read_text())['images'] == []


@pytest.mark.parametrize('arguments, words', [
    (['no.png'], 'no such image or folder: no.png'),
    (['.', '--topk', 0], 'topk must be at least 1'),
    (['.', '--score-thr', 2], 'score-thr in 0..1'),
    (['.', '--device', 'abacus'], 'abacus cannot be used'),
])
def test_bad_arguments(arguments, words, trained, images, tmp_path, monkeypatch):
    monkeypatch.chdir(images)
    with pytest.raises(MilanError, match=words):
        run(*trained('classification'), *arguments, '--out', tmp_path)


def test_second_run_leaves_out_its_own_images(trained, images, tmp_path):
    import shutil
    folder = tmp_path / 'mine'
    shutil.copytree(images, folder)
    files = trained('classification')
    for _ in range(2):
        run_on(files, folder, folder / 'predicted')
    with pytest.raises(MilanError, match='holds the images themselves'):
        run(*files, folder / 'Größe.png', '--out', folder)


def test_names_without_the_checkpoint(trained, images, tmp_path):
    """Bare weights name no classes: the config does, or numbers stand for them."""
    config, checkpoint = trained('classification')
    state = torch.load(checkpoint, weights_only=True)['state_dict']
    torch.save(state, tmp_path / 'bare.pth')
    with pytest.raises(MilanError, match='leaves num_classes open'):
        load_task_model(Config.fromfile(config), tmp_path / 'bare.pth')
    cfg = Config.fromfile(config)
    cfg.model.head.num_classes = 3
    assert load_task_model(cfg, tmp_path / 'bare.pth').name_of(2) == 'class 2'
    cfg.test_dataloader.dataset.metainfo = dict(classes=('a', 'b', 'c'))
    assert load_task_model(cfg, tmp_path / 'bare.pth').name_of(2) == 'c'
    cfg.test_dataloader.dataset = dict(type='nowhere.Dataset', pipeline=[dict(type='LoadPILImage')])
    assert load_task_model(cfg, tmp_path / 'bare.pth').classes == ()
    pytest.importorskip('mmdet')
    cfg.merge_from_dict(dict(default_scope='mmdet', test_dataloader=dict(dataset=dict(
        type='CocoDataset', pipeline=[dict(type='LoadImageFromFile')]))))
    assert load_task_model(cfg, tmp_path / 'bare.pth').name_of(0) == 'person'


def test_imagenet_names():
    from milan_mm.inference.tasks import _readable
    names = _readable(tuple(f'n{i:08d}' for i in range(1000)))
    assert names[0].startswith('tench') and len(names) == 1000


@pytest.mark.parametrize('change, words', [
    (lambda state: state.pop('head.fc.bias'), r'missing 1 \(head.fc.bias\)'),
    (lambda state: state.update(neck=torch.zeros(1)), r'left over 1 \(neck\)'),
    (lambda state: state.update({'backbone.pos_embed': torch.zeros(1, 5, 48)}),
     r'pos_embed is \(1, 5, 48\) in the checkpoint and should be \(1, 17, 48\)'),
])
def test_checkpoint_that_does_not_fit(change, words, trained, tmp_path):
    config, checkpoint = trained('classification')
    loaded = torch.load(checkpoint, weights_only=True)
    change(loaded['state_dict'])
    torch.save(loaded, tmp_path / 'other.pth')
    with pytest.raises(MilanError, match=words):
        load_task_model(Config.fromfile(config), tmp_path / 'other.pth')


def test_pretraining_predicts_nothing(trained, tmp_path):
    _, checkpoint = trained('classification')
    with pytest.raises(MilanError, match='MILAN predicts no classes.*milan eval'):
        load_task_model(Config.fromfile(ROOT / 'configs/quickstart/mae.py'), checkpoint)


def test_drawn_boxes():
    """A box of one colour on black: its outline, its mask's tint, its label inside the image."""
    mask = np.zeros((500, 600), bool)
    mask[100:200, 50:150] = True
    drawn = np.asarray(draw_detection(Image.new('RGB', (600, 500)), [
        Instance((50, 100, 150, 200), 'x', .9, (255, 0, 0), mask),
        Instance((590, 2, 599, 30), 'am Rand', .5, (0, 255, 0))]))
    assert (drawn[150, 50] == (255, 0, 0)).all() and (drawn[199, 100] == (255, 0, 0)).all()
    inside = drawn[150, 100]
    assert 100 < inside[0] < 130 and inside[1:].max() == 0  # 45 % of the colour
    assert (drawn[300] == 0).all()
    assert (drawn[2:14, 560:598] == (0, 255, 0)).all(-1).any()
