# MILAN ViT-L/16, taught by CLIP ViT-L/14 fed 196 x 196, so that its grid is the student's 14 x 14.
_base_ = './vitb_pretrain.py'
model = dict(
    backbone=dict(arch='vit-l'),
    target_generator=dict(model='ViT-L-14-quickgelu', pretrained='openai'))
# 64 x 8 GPUs x 8 accumulated = 4096
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(accumulative_counts=8)
