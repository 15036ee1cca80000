# Linear probing of MILAN's ViT-B: the command the authors published (github.com/zejiangh/MILAN,
# README: 100 epochs; MAE has 90), and for what it leaves at its default MAE's table 10.
effective_batch = 16384
base_lr = 0.05  # for 256 images
max_epochs = 100
warmup_epochs = 10

optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='float16',
    loss_scale='dynamic',
    accumulative_counts=1,
    optimizer=dict(
        type='mmpretrain.LARS', lr=base_lr * effective_batch / 256, momentum=0.9,
        weight_decay=0.),
    # No decay over layers: what is taken from it is that frozen parameters are left out. LARS
    # adapts the rate of matrices only.
    constructor='milan_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=1.0, custom_keys={'head.fc.bias': dict(lars_exclude=True)}))
auto_scale_lr = dict(base_batch_size=effective_batch, enable=False)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=warmup_epochs,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0., by_epoch=True, begin=warmup_epochs, end=max_epochs,
         T_max=max_epochs - warmup_epochs, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=5)
val_cfg = dict()
test_cfg = dict()
