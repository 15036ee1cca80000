# What every pretraining shares, besides what every run does.
_base_ = './default_runtime_downstream.py'
default_scope = 'mmpretrain'
default_hooks = dict(
    # k-NN and feature collapse on a small labelled folder, if one is given:
    # --cfg-options default_hooks.features.data=DIR
    features=dict(type='milan_mm.FeatureEvalHook', data=None, interval=20),
    checkpoint=dict(interval=20, max_keep_ckpts=3))
