# The recipe for UperNet on ADE20K: 160,000 updates of 16 images, 1,500 of them warm-up, then down
# to 0 in a straight line. Learning rate and layer decay as mmseg has them for MAE's ViT-B.
# The loop counts batches: where several make an update, everything counted grows with them.
effective_batch = 16
iterations = 160000
warmup = 1500

optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='float16',
    loss_scale='dynamic',
    accumulative_counts=1,
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='milan_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.65))
auto_scale_lr = dict(base_batch_size=effective_batch, enable=False)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=warmup),
    dict(type='PolyLR', power=1.0, eta_min=0., by_epoch=False, begin=warmup, end=iterations),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=iterations // 10)
val_cfg = dict()
test_cfg = dict()
