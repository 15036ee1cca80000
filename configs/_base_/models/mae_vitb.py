# MAE, ViT-B/16: the same parts, another choice of each.
model = dict(
    type='milan_mm.MILAN',
    backbone=dict(
        type='milan_mm.MaskedVisionTransformer', arch='vit-b', img_size=224, patch_size=16),
    target_generator=dict(type='milan_mm.PixelTargetGenerator', patch_size=16, norm_pix=True),
    mask_generator=dict(type='milan_mm.RandomMaskGenerator', mask_ratio=0.75),
    neck=dict(
        type='milan_mm.MAEDecoder',
        decoder_embed_dim=512,
        decoder_depth=8,
        decoder_num_heads=16),
    head=dict(
        type='milan_mm.ReconstructionHead',
        loss=dict(type='milan_mm.MSEReconstructionLoss'),
        tokens='masked'))
