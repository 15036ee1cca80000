# Linear probing of a pretrained ViT-L/16 on ImageNet-1k, on 8 GPUs.
_base_ = './vitb_linear_100e.py'
effective_batch = 16384
base_lr = 0.02  # for 256 images
model = dict(
    backbone=dict(arch='vit-l', frozen_stages=24),
    neck=dict(input_features=1024),
    head=dict(in_channels=1024))
# 2048 x 8 GPUs x 1 = 16384
train_dataloader = dict(batch_size=2048)
optim_wrapper = dict(optimizer=dict(lr=base_lr * effective_batch / 256))
