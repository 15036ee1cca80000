# ImageNet-1k with labels: data/imagenet/<train|val>/<class>/<image>, for finetuning.
data_root = 'data/imagenet'
data_preprocessor = dict(
    type='mmpretrain.ClsDataPreprocessor',
    num_classes=1000,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=False)  # images of milan_mm are RGB already

train_pipeline = [
    dict(type='milan_mm.LoadPILImage'),
    dict(type='milan_mm.RandomResizedCropAndFlip', size=224, scale=(0.08, 1.0)),
    dict(
        type='milan_mm.OnBGRArray',
        transforms=[
            # timm's rand-m9-mstd0.5-inc1
            dict(
                type='mmpretrain.RandAugment',
                policies='timm_increasing',
                num_policies=2,
                total_level=10,
                magnitude_level=9,
                magnitude_std=0.5,
                hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic')),
            # One rectangle of noise. Published: drawn after normalisation; here before, in BGR
            # with ImageNet's mean and deviation, so it is cut off at 0 and 255.
            dict(
                type='mmpretrain.RandomErasing',
                erase_prob=0.25,
                mode='rand',
                min_area_ratio=0.02,
                max_area_ratio=1 / 3,
                fill_color=[103.53, 116.28, 123.675],
                fill_std=[57.375, 57.12, 58.395]),
        ]),
    dict(type='milan_mm.PackImageInputs'),
]
test_pipeline = [
    dict(type='milan_mm.LoadPILImage'),
    dict(type='milan_mm.ResizeAndCenterCrop', size=224, crop_ratio=224 / 256),
    dict(type='milan_mm.PackImageInputs'),
]

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='milan_mm.EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='milan_mm.ImageFolder',
        data_root=data_root,
        data_prefix=dict(img_path='train'),
        with_label=True,
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='milan_mm.ImageFolder',
        data_root=data_root,
        data_prefix=dict(img_path='val'),
        with_label=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmpretrain.Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
