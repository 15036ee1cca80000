# The run of vitb_pretrain.py on one GPU: the same effective batch, by accumulation.
_base_ = './vitb_pretrain.py'
# 128 x 1 GPU x 32 accumulated = 4096
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(accumulative_counts=32)
