# MAE ViT-L/16.
_base_ = './vitb_pretrain.py'
model = dict(backbone=dict(arch='vit-l'))
# 128 x 8 GPUs x 4 accumulated = 4096
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(accumulative_counts=4)
