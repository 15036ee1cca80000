# MILAN ViT-S/16: the paper's recipe, a size the paper does not report.
_base_ = './vitb_pretrain.py'
model = dict(backbone=dict(arch='vit-s'))
# 512 x 8 GPUs x 1 = 4096
train_dataloader = dict(batch_size=512)
optim_wrapper = dict(accumulative_counts=1)
