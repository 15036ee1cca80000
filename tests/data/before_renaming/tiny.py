auto_scale_lr = dict(base_batch_size=4, enable=False)
custom_imports = dict(
    allow_failed_imports=False, imports=[
        'milan_mm',
    ])
data_preprocessor = dict(
    mean=[
        123.675,
        116.28,
        103.53,
    ],
    std=[
        58.395,
        57.12,
        57.375,
    ],
    type='milan_mm.PretrainDataPreprocessor')
default_hooks = dict(
    checkpoint=dict(interval=20, max_keep_ckpts=3, type='CheckpointHook'),
    describe=dict(type='milan_mm.DescribeEncoderHook'),
    features=dict(data=None, interval=20, type='milan_mm.FeatureEvalHook'),
    logger=dict(interval=1, type='LoggerHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    plain=dict(type='milan_mm.PlainCheckpointHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    summary=dict(type='milan_mm.RunSummaryHook'),
    timer=dict(type='IterTimerHook'),
    unreadable=dict(max_share=0.01, type='milan_mm.UnreadablePicturesHook'))
default_scope = 'mmpretrain'
effective_batch = 4
env_cfg = dict(
    cudnn_benchmark=True,
    dist_cfg=dict(backend='nccl'),
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
launcher = 'none'
load_from = None
log_level = 'INFO'
log_processor = dict(window_size=50)
max_epochs = 400
model = dict(
    backbone=dict(
        arch=dict(
            embed_dims=16, feedforward_channels=32, num_heads=2, num_layers=2),
        img_size=32,
        patch_size=8,
        type='milan_mm.MaskedVisionTransformer'),
    head=dict(
        loss=dict(type='milan_mm.CosineReconstructionLoss'),
        tokens='all',
        type='milan_mm.ReconstructionHead'),
    mask_generator=dict(
        mask_ratio=0.75, type='milan_mm.SemanticMaskGenerator'),
    neck=dict(
        decoder_depth=1,
        decoder_embed_dim=16,
        decoder_num_heads=2,
        type='milan_mm.PromptingDecoder'),
    target_generator=dict(
        pretrained='teacher', type='milan_mm.CLIPTargetGenerator'),
    type='milan_mm.MILAN')
optim_wrapper = dict(
    accumulative_counts=1,
    clip_grad=dict(max_norm=1000000000.0),
    optimizer=dict(
        betas=(
            0.9,
            0.95,
        ), lr=0.0003, type='AdamW', weight_decay=0.05),
    paramwise_cfg=dict(
        bias_decay_mult=0.0,
        custom_keys=dict(
            cls_token=dict(decay_mult=0.0),
            mask_token=dict(decay_mult=0.0),
            pos_embed=dict(decay_mult=0.0)),
        norm_decay_mult=0.0),
    type='OptimWrapper')
param_scheduler = [
    dict(
        T_max=1,
        begin=0,
        by_epoch=True,
        convert_to_iter_based=True,
        end=1,
        eta_min=0.0,
        type='CosineAnnealingLR'),
]
randomness = dict(diff_rank_seed=True, seed=0)
resume = False
train_cfg = dict(max_epochs=1, type='EpochBasedTrainLoop')
train_dataloader = dict(
    batch_size=4,
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        data_root='images',
        pipeline=[
            dict(type='milan_mm.LoadPicture'),
            dict(
                scale=(
                    0.2,
                    1.0,
                ),
                size=32,
                type='milan_mm.RandomResizedCropAndFlip'),
            dict(type='milan_mm.PackPicture'),
        ],
        type='milan_mm.PictureFolder'),
    drop_last=True,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    sampler=dict(shuffle=True, type='milan_mm.EpochSampler'))
train_pipeline = [
    dict(type='milan_mm.LoadPicture'),
    dict(
        scale=(
            0.2,
            1.0,
        ), size=32, type='milan_mm.RandomResizedCropAndFlip'),
    dict(type='milan_mm.PackPicture'),
]
vis_backends = [
    dict(type='LocalVisBackend'),
    dict(type='TensorboardVisBackend'),
]
visualizer = dict(
    type='Visualizer',
    vis_backends=[
        dict(type='LocalVisBackend'),
        dict(type='TensorboardVisBackend'),
    ])
warmup_epochs = 40
work_dir = 'work_dirs/tiny'
