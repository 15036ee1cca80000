# The run of vitl_pretrain.py, parameters and optimizer sharded over the GPUs: fully sharded data
# parallel through mmengine's FlexibleRunner. In bfloat16, which needs no loss scaling.
_base_ = './vitl_pretrain.py'
runner_type = 'FlexibleRunner'
strategy = dict(
    type='FSDPStrategy',
    model_wrapper=dict(
        # Fixed positions need no gradient, and share modules with parameters that do.
        use_orig_params=True,
        mixed_precision=dict(param_dtype='bfloat16', reduce_dtype='float32'),
        auto_wrap_policy=dict(
            type='torch.distributed.fsdp.wrap.size_based_auto_wrap_policy',
            min_num_params=int(5e6))))
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    accumulative_counts=8,
    optimizer=dict(type='AdamW', lr=1.5e-4 * 4096 / 256, betas=(0.9, 0.95), weight_decay=0.05),
    clip_grad=dict(max_norm=1e9),
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        custom_keys=dict(
            cls_token=dict(decay_mult=0.),
            mask_token=dict(decay_mult=0.),
            pos_embed=dict(decay_mult=0.))))
