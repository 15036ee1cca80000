# The run of vitb_coco_lsj1024_12e.py on one GPU: the same effective batch, by accumulation.
_base_ = './vitb_coco_lsj1024_12e.py'
# 4 x 1 GPU x 16 accumulated = 64
train_dataloader = dict(batch_size=4)
accumulated = 16
warmup = 250
max_epochs = 12
optim_wrapper = dict(accumulative_counts=accumulated)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=warmup * accumulated),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[8, 11],
         gamma=0.1),
]
