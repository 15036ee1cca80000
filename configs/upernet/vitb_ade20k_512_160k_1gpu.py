# The run of vitb_ade20k_512_160k.py on one GPU: the same effective batch and number of updates, by
# accumulation. BatchNorm sees 4 images at a time here, not the 16 of 8 GPUs.
_base_ = './vitb_ade20k_512_160k.py'
accumulated = 4
iterations = 160000 * accumulated
warmup = 1500 * accumulated
# 4 x 1 GPU x 4 accumulated = 16
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(accumulative_counts=accumulated)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=warmup),
    dict(type='PolyLR', power=1.0, eta_min=0., by_epoch=False, begin=warmup, end=iterations),
]
train_cfg = dict(max_iters=iterations, val_interval=iterations // 10)
default_hooks = dict(checkpoint=dict(interval=iterations // 10))
