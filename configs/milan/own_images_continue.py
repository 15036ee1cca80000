# A short schedule for one's own images, starting from an earlier MILAN or MAE run:
#   milan train configs/milan/own_images_continue.py --data-root DIR --init-from CHECKPOINT
# A tenth of the epochs, a third of the learning rate: the encoder starts near where it should end.
_base_ = './own_images.py'
effective_batch = 512
max_epochs = 40
warmup_epochs = 4
optim_wrapper = dict(optimizer=dict(lr=5e-5 * effective_batch / 256))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=warmup_epochs,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0., by_epoch=True, begin=warmup_epochs, end=max_epochs,
         T_max=max_epochs - warmup_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs)
