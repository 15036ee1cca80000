# UperNet at quickstart scale: the encoder of configs/_base_/quickstart.py on the scenes of
# detection.py with their label maps. From MILAN with --init-from CHECKPOINT, from scratch without.
_base_ = ['../_base_/default_runtime_downstream.py']
default_scope = 'mmseg'
visualizer = dict(type='mmseg.SegLocalVisualizer')
data_root = 'work_dirs/quickstart/scenes/ade'
size = (64, 64)
effective_batch = 16
max_iters = 800
channels = 64
norm_cfg = dict(type='SyncBN', requires_grad=True)

model = dict(
    type='mmseg.EncoderDecoder',
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=size),
    backbone=dict(
        type='milan_mm.MaskedVisionTransformer',
        arch=dict(embed_dims=128, num_layers=6, num_heads=4, feedforward_channels=512),
        img_size=size,
        patch_size=8,
        positions='learned',
        out_type='featmap',
        out_indices=[1, 2, 4, 5],
        final_norm=False,
        init_cfg=dict(type='milan_mm.PretrainedViT', checkpoint=None)),
    neck=dict(  # strides 4, 8, 16, 32, as patches of 16 have them with the paper's 4, 2, 1, 0.5
        type='mmseg.Feature2Pyramid', embed_dim=128, rescales=[2, 1, 0.5, 0.25], norm_cfg=norm_cfg),
    decode_head=dict(
        type='mmseg.UPerHead',
        in_channels=[128] * 4,
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=channels,
        dropout_ratio=0.1,
        num_classes=None,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='mmseg.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    auxiliary_head=dict(
        type='mmseg.FCNHead',
        in_channels=128,
        in_index=2,
        channels=channels,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=None,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='mmseg.CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))

train_pipeline = [
    dict(type='milan_mm.LoadBGRImage'),
    dict(type='mmseg.LoadAnnotations'),
    dict(type='mmseg.Resize', scale=size),
    dict(type='mmseg.RandomFlip', prob=0.5),
    dict(type='mmseg.PackSegInputs'),
]
test_pipeline = [
    dict(type='milan_mm.LoadBGRImage', skip_unreadable=False),
    dict(type='mmseg.Resize', scale=size),
    dict(type='mmseg.LoadAnnotations'),  # after the resizing: measured in the image's own size
    dict(type='mmseg.PackSegInputs'),
]
train_dataloader = dict(
    batch_size=effective_batch,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='mmseg.BaseSegDataset', data_root=data_root, img_suffix='.jpg', seg_map_suffix='.png',
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmseg.BaseSegDataset', data_root=data_root, img_suffix='.jpg', seg_map_suffix='.png',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        test_mode=True, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='milan_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.8, custom_keys={'backbone': dict(lr_mult=0.4)}),
    clip_grad=dict(max_norm=1.0))
auto_scale_lr = dict(base_batch_size=effective_batch)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=80),
    dict(type='PolyLR', power=1.0, eta_min=0., by_epoch=False, begin=80, end=max_iters),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    hits=dict(type='milan_mm.ImageHitsHook'),
    logger=dict(interval=20),
    checkpoint=dict(by_epoch=False, interval=max_iters, max_keep_ckpts=1))
log_processor = dict(by_epoch=False, window_size=20)
env_cfg = dict(cudnn_benchmark=False)
