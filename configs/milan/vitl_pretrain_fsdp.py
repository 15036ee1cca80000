# The run of vitl_pretrain.py, parameters and optimizer sharded over the GPUs (FSDP). bfloat16,
# because mmengine's sharded optimizer has no loss scaling.
_base_ = ['./vitl_pretrain.py', '../_base_/fsdp.py']
