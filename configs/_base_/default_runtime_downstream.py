# What every run shares: hooks, logging, environment. Each finetuning sets its default_scope.
custom_imports = dict(imports=['milan_mm'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    summary=dict(type='milan_mm.RunSummaryHook'),
    progress=dict(type='milan_mm.ProgressHook'),
    stop=dict(type='milan_mm.StopOnSignalHook'),
    bad_numbers=dict(type='milan_mm.BadNumbersHook', stop_after=5),
    unreadable=dict(type='milan_mm.UnreadableImagesHook', max_share=0.01),
    describe=dict(type='milan_mm.DescribeEncoderHook'),
    plain=dict(type='milan_mm.PlainCheckpointHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1),
    sampler_seed=dict(type='DistSamplerSeedHook'))

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))

vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends)
log_processor = dict(window_size=50)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0, diff_rank_seed=True)
