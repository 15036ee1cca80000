# MILAN ViT-H/14, taught by CLIP ViT-L/14: both see 224 x 224 as 16 x 16 patches. A size the paper
# does not report.
_base_ = './vitb_pretrain.py'
model = dict(
    backbone=dict(arch='vit-h', patch_size=14),
    target_generator=dict(model='ViT-L-14-quickgelu', pretrained='openai'))
# 32 x 8 GPUs x 16 accumulated = 4096
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(accumulative_counts=16)
