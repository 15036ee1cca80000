# MAE at quickstart scale: encoder, data, steps and augmentation of milan.py.
_base_ = ['../_base_/quickstart.py']
model = dict(
    type='milan_mm.MILAN',
    backbone=dict(type='milan_mm.MaskedVisionTransformer'),
    target_generator=dict(type='milan_mm.PixelTargetGenerator', patch_size=8, norm_pix=True),
    mask_generator=dict(type='milan_mm.RandomMaskGenerator', mask_ratio=0.75),
    neck=dict(type='milan_mm.MAEDecoder'),
    head=dict(
        type='milan_mm.ReconstructionHead',
        loss=dict(type='milan_mm.MSEReconstructionLoss'),
        tokens='masked'))
