# ImageNet-1k's training images, as MILAN and MAE see them. Labels are not used.
data_preprocessor = dict(
    type='milan_mm.PretrainDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375])

train_pipeline = [
    dict(type='milan_mm.LoadPILImage'),
    dict(type='milan_mm.RandomResizedCropAndFlip', size=224, scale=(0.2, 1.0)),
    dict(type='milan_mm.PackImageInputs'),
]

train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='milan_mm.EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='milan_mm.ImageFolder', data_root='data/imagenet/train', pipeline=train_pipeline))
