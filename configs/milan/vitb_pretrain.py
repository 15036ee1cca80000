# MILAN ViT-B/16, 400 epochs of ImageNet-1k: the paper's run, on 8 GPUs.
_base_ = [
    '../_base_/models/milan_vitb.py',
    '../_base_/datasets/imagenet_224.py',
    '../_base_/schedules/pretrain_400e.py',
    '../_base_/default_runtime.py',
]
# 256 x 8 GPUs x 2 accumulated = 4096
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(
    type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic', accumulative_counts=2)
