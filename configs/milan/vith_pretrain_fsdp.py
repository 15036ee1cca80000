# The run of vith_pretrain.py, sharded as vitl_pretrain_fsdp.py is.
_base_ = './vitl_pretrain_fsdp.py'
model = dict(backbone=dict(arch='vit-h', patch_size=14))
# 32 x 8 GPUs x 16 accumulated = 4096
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(accumulative_counts=16)
