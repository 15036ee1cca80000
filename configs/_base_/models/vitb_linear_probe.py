# A linear map on the frozen CLS token of a ViT-B/16, standardised by a BatchNorm without affine
# (MAE, arXiv 2111.06377, App. A.1).
model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='milan_mm.MaskedVisionTransformer',
        arch='vit-b',
        img_size=224,
        patch_size=16,
        out_type='cls_token',
        final_norm=True,
        frozen_stages=12,  # all blocks, and with them everything else in the encoder
        init_cfg=dict(type='milan_mm.PretrainedViT', checkpoint=None)),
    neck=dict(type='mmpretrain.ClsBatchNormNeck', input_features=768, affine=False),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='mmpretrain.CrossEntropyLoss'),
        init_cfg=dict(type='Normal', layer='Linear', std=0.01)))
