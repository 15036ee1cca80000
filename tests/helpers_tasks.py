# SPDX-License-Identifier: Apache-2.0
"""Everything of the own_*.py configs but their sizes: configs of one's own, options, data."""
import numpy as np
from conftest import ROOT, TINY_VIT
from PIL import Image

LOADERS = [f'{loader}_dataloader.{key}' for loader in ('train', 'val', 'test') for key in (
    'num_workers=0', 'persistent_workers=False', 'pin_memory=False')]
SMALL_DETECTOR = [
    *LOADERS, 'train_dataloader.dataset.pipeline.2.scale=(64, 64)',
    'train_dataloader.dataset.pipeline.3.crop_size=(64, 64)',
    *(f'{x}_dataloader.dataset.pipeline.1.scale=(64, 64)' for x in ('val', 'test')),
    'train_dataloader.dataset.filter_cfg.min_size=1', 'optim_wrapper.accumulative_counts=1',
    'default_hooks.logger.interval=1']
SMALL_SEGMENTOR = [
    *LOADERS, 'data_preprocessor.size=(64,64)',
    'train_dataloader.dataset.pipeline.2.scale=(256,64)',
    'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
    *(f'{x}_dataloader.dataset.pipeline.1.scale=(256,64)' for x in ('val', 'test')),
    'optim_wrapper.accumulative_counts=1', 'optim_wrapper.optimizer.lr=6e-2',
    'default_hooks.logger.interval=1']


def small_detector(path):
    """Mask R-CNN on a small ViT, written to a file."""
    path.write_text(f"""_base_ = '{ROOT}/configs/mask_rcnn/own_coco.py'
norm = dict(type='milan_mm.LN2d', eps=1e-6)
roi = dict(out_channels=16, roi_layer=dict(sampling_ratio=1))
model = dict(
    data_preprocessor=dict(pad_size_divisor=64),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
        img_size=64, patch_size=16, window_size=3, global_indices=(1, )),
    neck=dict(in_channels=32, out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=roi, mask_roi_extractor=roi,
        bbox_head=dict(in_channels=16, conv_out_channels=16, fc_out_channels=32),
        mask_head=dict(in_channels=16, conv_out_channels=16)),
    train_cfg=dict(rcnn=dict(sampler=dict(num=16)), rpn_proposal=dict(max_per_img=32)),
    test_cfg=dict(rpn=dict(max_per_img=32), rcnn=dict(score_thr=0.0, max_per_img=10)))
""")
    return path


def small_segmentor(path):
    """UperNet on a small ViT, written to a file."""
    arch = dict(embed_dims=32, num_layers=4, num_heads=4, feedforward_channels=64)
    path.write_text(
        f"_base_ = '{ROOT}/configs/upernet/own_ade.py'\n"
        f'model = dict(\n'
        f'    backbone=dict(arch=dict(_delete_=True, **{arch}), img_size=64, patch_size=8,\n'
        '                  out_indices=(0, 1, 2, 3), drop_path_rate=0.),\n'
        '    neck=dict(embed_dim=32),\n'
        '    decode_head=dict(in_channels=[32] * 4, channels=32, dropout_ratio=0.),\n'
        '    auxiliary_head=dict(in_channels=32, channels=16, dropout_ratio=0.),\n'
        '    test_cfg=dict(crop_size=(64, 64), stride=(43, 43)))\n')
    return path


def small_classifier(path, kind):
    """Finetuning or linear probing of a small ViT, a config of one's own."""
    frozen = dict(frozen_stages=TINY_VIT['num_layers']) if kind == 'linear' else {}
    neck = 'neck=dict(input_features=48), ' if kind == 'linear' else ''
    path.write_text(
        f"_base_ = '{ROOT}/configs/classification/own_{kind}.py'\n"
        f'model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY_VIT}), img_size=32, '
        f'patch_size=8, **{frozen}), {neck}head=dict(in_channels=48))\n')
    return path


def make_scenes(root, classes):
    """Coloured blocks on a dark ground; the frame of each image is not labelled."""
    rng = np.random.default_rng(0)
    for part, count in (('training', 16), ('validation', 5)):
        for kind in ('images', 'annotations'):
            (root / kind / part).mkdir(parents=True)
        for i in range(count):
            height, width = 70 + 4 * i, 96
            pixels = rng.integers(0, 80, (height, width, 3))
            labels = np.zeros((height, width), np.uint8)
            for label in (1, 2):
                y, x = rng.integers(4, height - 40), rng.integers(4, width - 40)
                labels[y:y + 36, x:x + 36] = label
                pixels[y:y + 36, x:x + 36] = rng.integers(0, 60, (36, 36, 3))
                pixels[y:y + 36, x:x + 36, label - 1] += 180
            labels[:2] = labels[-2:] = labels[:, :2] = labels[:, -2:] = 255
            Image.fromarray(pixels.astype(np.uint8)).save(
                root / 'images' / part / f'{i}.jpg', quality=95)
            Image.fromarray(labels).save(root / 'annotations' / part / f'{i}.png')
    (root / 'classes.txt').write_text('\n'.join(classes) + '\n', encoding='utf-8')
    return root
