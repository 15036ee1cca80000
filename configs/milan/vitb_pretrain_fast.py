# MILAN ViT-B/16 with what saved time without costing accuracy in studies/fast.py, at the scale of
# the quickstart (docs/performance.md); not run on ImageNet. Half of the masked patches are
# predicted, the images of the first 220 of 400 epochs have 160 px, products are in bfloat16, JPEGs
# are decoded at the scale of the crop. None of the four is the paper's; images, student views and
# updates are as many.
_base_ = ['./vitb_pretrain.py']

model = dict(mask_generator=dict(predicted=0.5))
train_pipeline = [
    dict(type='milan_mm.LoadPILImage', scaled_jpegs=True),
    dict(type='milan_mm.RandomResizedCropAndFlip', size=224, scale=(0.2, 1.0),
         phases=((160, 220), )),
    dict(type='milan_mm.PackImageInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
# bfloat16 where the device is faster with it, else float16 with a loss scaler.
optim_wrapper = dict(
    _delete_=True,
    type='milan_mm.AutocastOptimWrapper',
    accumulative_counts=2,
    optimizer=dict(type='AdamW', lr=1.5e-4 * 4096 / 256, betas=(0.9, 0.95), weight_decay=0.05,
                   fused=True),
    clip_grad=dict(max_norm=1e9),
    paramwise_cfg={{_base_.optim_wrapper.paramwise_cfg}})
