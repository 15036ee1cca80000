# The run of vitb_pretrain.py on one GPU: the same effective batch, by accumulation.
_base_ = './vitb_pretrain.py'
# 128 x 1 GPU x 8 accumulated = 1024
optim_wrapper = dict(accumulative_counts=8)
