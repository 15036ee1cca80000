# MaskAlign at quickstart scale: encoder, data, steps and augmentation of milan.py, and its teacher,
# all four blocks of it. Masking ratio and drop path are those of milan.py too, so that the two
# differ in what comes after the encoder alone.
_base_ = ['../_base_/quickstart.py']
model = dict(
    type='milan_mm.MaskAlign',
    backbone=dict(
        type='milan_mm.MaskedVisionTransformer',
        init_cfg=dict(type='milan_mm.PretrainedViT', checkpoint=None)),
    target_generator=dict(
        type='milan_mm.CLIPLevelsTargetGenerator', levels=4,
        pretrained='demo/teacher'),
    mask_generator=dict(type='milan_mm.SemanticMaskGenerator', mask_ratio=0.75),
    neck=dict(_delete_=True, type='milan_mm.DynamicAlignment'),
    head=dict(
        type='milan_mm.AlignmentHead', loss=dict(type='milan_mm.SmoothL1AlignmentLoss')))
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(level_weights=dict(decay_mult=0.))))
