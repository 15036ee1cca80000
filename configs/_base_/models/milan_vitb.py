# MILAN, ViT-B/16, taught by OpenAI's CLIP ViT-B/16. Widths and the grid of the decoder follow
# from encoder and teacher.
model = dict(
    type='milan_mm.MILAN',
    backbone=dict(
        type='milan_mm.MaskedVisionTransformer', arch='vit-b', img_size=224, patch_size=16),
    target_generator=dict(
        type='milan_mm.CLIPTargetGenerator', model='ViT-B-16-quickgelu', pretrained='openai'),
    mask_generator=dict(type='milan_mm.SemanticMaskGenerator', mask_ratio=0.75),
    neck=dict(
        type='milan_mm.PromptingDecoder',
        decoder_embed_dim=512,
        decoder_depth=8,
        decoder_num_heads=16),
    head=dict(
        type='milan_mm.ReconstructionHead',
        loss=dict(type='milan_mm.CosineReconstructionLoss'),
        tokens='all'))
