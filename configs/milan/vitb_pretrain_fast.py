# MILAN ViT-B/16 at less than half the cost of a student view: four masks of each image share one
# pass of the teacher, half of the masked patches are predicted, products are in bfloat16, JPEGs are
# decoded at the scale of the crop. None of the four is the paper's. 100 epochs have as many student
# views as the paper's 400.
_base_ = ['./vitb_pretrain.py']
effective_batch = 1024  # images, of which each has 4 views: 4096 views an update
max_epochs = 100
warmup_epochs = 10

model = dict(mask_generator=dict(views=4, predicted=0.5))
train_pipeline = [
    dict(type='milan_mm.LoadPILImage', scaled_jpegs=True),
    dict(type='milan_mm.RandomResizedCropAndFlip', size=224, scale=(0.2, 1.0)),
    dict(type='milan_mm.PackImageInputs'),
]
# 64 x 8 GPUs x 2 accumulated = 1024
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(
    _delete_=True,
    type='milan_mm.AutocastOptimWrapper',
    accumulative_counts=2,
    optimizer=dict(type='AdamW', lr=1.5e-4 * 4096 / 256, betas=(0.9, 0.95), weight_decay=0.05,
                   fused=True),
    clip_grad=dict(max_norm=1e9),
    paramwise_cfg={{_base_.optim_wrapper.paramwise_cfg}})
auto_scale_lr = dict(base_batch_size=effective_batch)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=warmup_epochs,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0., by_epoch=True, begin=warmup_epochs, end=max_epochs,
         T_max=max_epochs - warmup_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs)
