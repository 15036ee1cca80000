# Finetuning of MILAN's ViT-B: the command the authors published (github.com/zejiangh/MILAN,
# README), and for what it leaves at its default MAE's table 9 (arXiv 2111.06377).
effective_batch = 1024
base_lr = 1e-4  # for 256 images
max_epochs = 100
warmup_epochs = 5

optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='float16',
    loss_scale='dynamic',
    accumulative_counts=1,
    optimizer=dict(
        type='AdamW', lr=base_lr * effective_batch / 256, betas=(0.9, 0.999), weight_decay=0.05,
        fused=True),
    constructor='milan_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.65))
auto_scale_lr = dict(base_batch_size=effective_batch, enable=False)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=warmup_epochs,
         convert_to_iter_based=True),
    # Down to 1e-6, and in each layer to that times the layer's scale: hence a ratio.
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-6 / (base_lr * effective_batch / 256),
         by_epoch=True, begin=warmup_epochs, end=max_epochs, T_max=max_epochs - warmup_epochs,
         convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=5)
val_cfg = dict()
test_cfg = dict()
