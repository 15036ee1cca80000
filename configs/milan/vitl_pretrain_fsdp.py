# The run of vitl_pretrain.py, parameters and optimizer sharded over the GPUs: fully sharded data
# parallel through mmengine's FlexibleRunner. In bfloat16, which needs no loss scaling.
_base_ = [
    '../_base_/models/milan_vitb.py',
    '../_base_/datasets/imagenet_224.py',
    '../_base_/schedules/pretrain_400e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='vit-l'),
    target_generator=dict(model='ViT-L-14-quickgelu', pretrained='openai'))
# 64 x 8 GPUs x 8 accumulated = 4096
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(accumulative_counts=8)

runner_type = 'FlexibleRunner'
strategy = dict(
    type='FSDPStrategy',
    state_dict_cfg='full',  # one file that every tool reads, instead of a shard a process
    model_wrapper=dict(
        # Fixed positions need no gradient, and share modules with parameters that do.
        use_orig_params=True,
        mixed_precision=dict(param_dtype='bfloat16', reduce_dtype='float32'),
        auto_wrap_policy=dict(
            type='torch.distributed.fsdp.wrap.size_based_auto_wrap_policy',
            min_num_params=int(5e6))))
