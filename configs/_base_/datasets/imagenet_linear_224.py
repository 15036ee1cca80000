# ImageNet-1k with labels, for linear probing: no augmentation but crop and flip.
_base_ = './imagenet_finetune_224.py'
train_pipeline = [
    dict(type='milan_mm.LoadPILImage'),
    dict(type='milan_mm.RandomResizedCropAndFlip', size=224, scale=(0.08, 1.0)),
    dict(type='milan_mm.PackImageInputs'),
]
train_dataloader = dict(batch_size=2048, dataset=dict(pipeline=train_pipeline))
