# The run of vitb_linear_100e.py on one GPU. The batch of one step is the published one of a GPU:
# that is what the BatchNorm sees, not the accumulated one.
_base_ = './vitb_linear_100e.py'
# 2048 x 1 GPU x 8 accumulated = 16384
train_dataloader = dict(batch_size=2048)
optim_wrapper = dict(accumulative_counts=8)
