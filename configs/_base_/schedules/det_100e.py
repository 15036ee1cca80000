# ViTDet's recipe for COCO (arXiv 2203.16527, App. A.1, and the authors' published configuration):
# 100 epochs with batches of 64; the learning rate falls by 10 at 163,889 and 177,546 of 184,375
# updates, 88.9 % and 96.3 % of the way, here after whole epochs.
# The loop counts batches: where several make an update, the warm-up of 250 updates grows with them.
effective_batch = 64
max_epochs = 100
accumulated = 2  # as 8 GPUs with 4 images each need it
warmup = 250

optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='float16',
    loss_scale='dynamic',
    accumulative_counts=accumulated,
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1, fused=True),
    constructor='milan_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.7))
auto_scale_lr = dict(base_batch_size=effective_batch, enable=False)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=warmup * accumulated),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs,
         milestones=[round(max_epochs * 0.889), round(max_epochs * 0.963)], gamma=0.1),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
