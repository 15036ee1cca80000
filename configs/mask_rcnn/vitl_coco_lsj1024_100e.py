# Mask R-CNN with a pretrained ViT-L/16 on COCO, 100 epochs, on 8 GPUs. Layer decay and drop path as
# ViTDet has them for this size.
_base_ = './vitb_coco_lsj1024_100e.py'
model = dict(
    backbone=dict(arch='vit-l', global_indices=(5, 11, 17, 23), drop_path_rate=0.4),
    neck=dict(in_channels=1024))
# 2 x 8 GPUs x 4 accumulated = 64
train_dataloader = dict(batch_size=2)
accumulated = 4
warmup = 250
max_epochs = 100
optim_wrapper = dict(
    accumulative_counts=accumulated, paramwise_cfg=dict(layer_decay_rate=0.8))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=warmup * accumulated),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs,
         milestones=[round(max_epochs * 0.889), round(max_epochs * 0.963)], gamma=0.1),
]
