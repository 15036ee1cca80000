# Finetuning at quickstart scale: the encoder of configs/_base_/quickstart.py, three epochs of the
# quickstart's images. From MILAN with --init-from CHECKPOINT, from scratch without.
_base_ = ['../_base_/models/vitb_classifier.py', '../_base_/default_runtime_downstream.py']
default_scope = 'mmpretrain'
visualizer = dict(type='mmpretrain.UniversalVisualizer')
data_root = 'work_dirs/quickstart/data'
effective_batch = 64
max_epochs = 3
warmup_epochs = 1

data_preprocessor = dict(
    type='mmpretrain.ClsDataPreprocessor', num_classes=None, mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375], to_rgb=False)
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=128, num_layers=6, num_heads=4,
                  feedforward_channels=512),
        img_size=64,
        patch_size=8,
        drop_path_rate=0.),
    head=dict(num_classes=None, in_channels=128),
    train_cfg=None)

train_pipeline = [
    dict(type='milan_mm.LoadPILImage'),
    dict(type='milan_mm.RandomResizedCropAndFlip', size=64, scale=(0.35, 1.0)),
    dict(type='milan_mm.PackImageInputs'),
]
test_pipeline = [
    dict(type='milan_mm.LoadPILImage'),
    dict(type='milan_mm.ResizeAndCenterCrop', size=64, crop_ratio=1),
    dict(type='milan_mm.PackImageInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='milan_mm.EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='milan_mm.ImageFolder', data_root=data_root, data_prefix=dict(img_path='train'),
        with_label=True, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=128,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='milan_mm.ImageFolder', data_root=data_root, data_prefix=dict(img_path='test'),
        with_label=True, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmpretrain.Accuracy', topk=(1, ))
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='milan_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.75))
auto_scale_lr = dict(base_batch_size=effective_batch)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=warmup_epochs,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0., by_epoch=True, begin=warmup_epochs, end=max_epochs,
         T_max=max_epochs - warmup_epochs, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(
    describe=dict(crop_ratio=1),  # images without a margin, which are evaluated whole
    hits=dict(type='milan_mm.ImageHitsHook'),
    logger=dict(interval=20), checkpoint=dict(interval=max_epochs, max_keep_ckpts=1))
log_processor = dict(window_size=20)
env_cfg = dict(cudnn_benchmark=False)
