# Finetuning a pretrained ViT-L/16 on ImageNet-1k, 50 epochs, on 8 GPUs. Epochs, layer decay and
# drop path as MAE has them for this size; the base learning rate is that of MILAN's ViT-B.
_base_ = './vitb_finetune_100e.py'
max_epochs = 50
warmup_epochs = 5
effective_batch = 1024
base_lr = 1e-4  # for 256 images
model = dict(
    backbone=dict(arch='vit-l', drop_path_rate=0.2),
    head=dict(in_channels=1024))
# 64 x 8 GPUs x 2 accumulated = 1024
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(accumulative_counts=2, paramwise_cfg=dict(layer_decay_rate=0.75))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=warmup_epochs,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-6 / (base_lr * effective_batch / 256),
         by_epoch=True, begin=warmup_epochs, end=max_epochs, T_max=max_epochs - warmup_epochs,
         convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs)
