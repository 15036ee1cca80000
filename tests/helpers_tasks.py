# SPDX-License-Identifier: Apache-2.0
"""Everything of own_coco.py and own_ade.py but their sizes: configs of one's own, and options."""
from conftest import ROOT

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
