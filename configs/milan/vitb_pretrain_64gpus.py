# The run of vitb_pretrain.py on 64 GPUs.
_base_ = './vitb_pretrain.py'
# 64 x 64 GPUs x 1 = 4096
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(accumulative_counts=1)
