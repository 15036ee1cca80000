# The run of vitb_finetune_100e.py on one GPU: the same effective batch, by accumulation.
_base_ = './vitb_finetune_100e.py'
# 128 x 1 GPU x 8 accumulated = 1024
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(accumulative_counts=8)
