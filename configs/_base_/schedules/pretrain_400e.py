# The recipe of MILAN and MAE: 4096 images per update, 400 epochs, 40 of them warm-up.
# milan train prints batch x processes x accumulation and the learning rate at the start.
effective_batch = 4096
max_epochs = 400
warmup_epochs = 40

optim_wrapper = dict(
    type='OptimWrapper',
    accumulative_counts=1,
    optimizer=dict(type='AdamW', lr=1.5e-4 * effective_batch / 256, betas=(0.9, 0.95),
                   weight_decay=0.05, fused=True),
    # The norm is logged; a bound this high never changes a step.
    clip_grad=dict(max_norm=1e9),
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        custom_keys=dict(
            cls_token=dict(decay_mult=0.),
            mask_token=dict(decay_mult=0.),
            pos_embed=dict(decay_mult=0.))))
auto_scale_lr = dict(base_batch_size=effective_batch, enable=False)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=warmup_epochs,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0., by_epoch=True, begin=warmup_epochs, end=max_epochs,
         T_max=max_epochs - warmup_epochs, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs)
