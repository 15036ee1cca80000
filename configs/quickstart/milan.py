# MILAN at quickstart scale, taught by the CLIP that comes with the package (demo/teacher).
_base_ = ['../_base_/quickstart.py']
model = dict(
    type='milan_mm.MILAN',
    backbone=dict(type='milan_mm.MaskedVisionTransformer'),
    target_generator=dict(
        type='milan_mm.CLIPTargetGenerator', pretrained='demo/teacher'),
    mask_generator=dict(type='milan_mm.SemanticMaskGenerator', mask_ratio=0.75),
    neck=dict(type='milan_mm.PromptingDecoder'),
    head=dict(
        type='milan_mm.ReconstructionHead',
        loss=dict(type='milan_mm.CosineReconstructionLoss'),
        tokens='all'))
