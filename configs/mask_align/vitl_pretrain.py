# MaskAlign ViT-L/16, taught by CLIP ViT-L/14 fed 196 x 196, so that its grid is the student's 14 x
# 14; drop path as its authors publish it for ViT-L, the rest as of vitb_pretrain.py.
_base_ = './vitb_pretrain.py'
model = dict(
    backbone=dict(arch='vit-l', drop_path_rate=0.2),
    target_generator=dict(model='ViT-L-14-quickgelu'))
# 64 x 8 GPUs x 2 accumulated = 1024
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(accumulative_counts=2)
