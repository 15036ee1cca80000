# MaskAlign ViT-B/16, 200 epochs of ImageNet-1k, on 8 GPUs: the recipe that its authors publish for
# CLIP ViT-B/16 as teacher (batch, learning rate and its floor, epochs, warm-up, drop path, mask
# ratio, five levels, linear adaptors and combination, smooth L1 on whitened targets). Optimizer
# and augmentation are MAE's, which their code is built on.
_base_ = [
    '../_base_/datasets/imagenet_224.py',
    '../_base_/schedules/pretrain_400e.py',
    '../_base_/default_runtime.py',
]
effective_batch = 1024
max_epochs = 200
warmup_epochs = 20

model = dict(
    type='milan_mm.MaskAlign',
    backbone=dict(
        type='milan_mm.MaskedVisionTransformer', arch='vit-b', img_size=224, patch_size=16,
        drop_path_rate=0.1,
        # takes --init-from; without it the encoder starts fresh
        init_cfg=dict(type='milan_mm.PretrainedViT', checkpoint=None)),
    target_generator=dict(
        type='milan_mm.CLIPLevelsTargetGenerator', levels=5,
        model='ViT-B-16-quickgelu', pretrained='openai'),
    mask_generator=dict(type='milan_mm.SemanticMaskGenerator', mask_ratio=0.7),
    neck=dict(type='milan_mm.DynamicAlignment'),
    head=dict(
        type='milan_mm.AlignmentHead', loss=dict(type='milan_mm.SmoothL1AlignmentLoss')))

# 128 x 8 GPUs x 1 = 1024
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(
    type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic',
    optimizer=dict(lr=1.5e-4 * effective_batch / 256),
    paramwise_cfg=dict(custom_keys=dict(level_weights=dict(decay_mult=0.))))
auto_scale_lr = dict(base_batch_size=effective_batch)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=warmup_epochs,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=warmup_epochs,
         end=max_epochs, T_max=max_epochs - warmup_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs)
