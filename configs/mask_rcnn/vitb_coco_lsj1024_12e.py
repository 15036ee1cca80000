# A short training, to compare checkpoints by: 12 epochs, the learning rate falling after 8 and 11
# as in Mask R-CNN's usual short schedule ("1x"). All else is that of vitb_coco_lsj1024_100e.py.
_base_ = './vitb_coco_lsj1024_100e.py'
accumulated = 2
warmup = 250
max_epochs = 12
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=warmup * accumulated),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[8, 11],
         gamma=0.1),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=1))
