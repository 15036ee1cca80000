# Fully sharded data parallel training through mmengine's FlexibleRunner.
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
optim_wrapper = dict(type='OptimWrapper', dtype=None, loss_scale=None)
