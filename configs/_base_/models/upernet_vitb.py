# UperNet (arXiv 1807.10221) on a plain ViT-B/16, as BEiT (arXiv 2106.08254) put them together and
# MAE and MILAN kept it: four blocks, a third of the depth apart, rescaled to strides 4, 8, 16 and
# 32; heads as wide as the encoder; an FCN on the stride of 16 helps the training.
norm_cfg = dict(type='SyncBN', requires_grad=True)  # BN by itself on a CPU or in one process
model = dict(
    type='mmseg.EncoderDecoder',
    backbone=dict(
        type='milan_mm.MaskedVisionTransformer',
        arch='vit-b',
        img_size=512,
        patch_size=16,
        positions='learned',
        out_type='featmap',
        out_indices=(3, 5, 7, 11),
        final_norm=False,
        drop_path_rate=0.1,
        init_cfg=dict(type='milan_mm.PretrainedViT', checkpoint=None)),
    neck=dict(
        type='mmseg.Feature2Pyramid', embed_dim=768, rescales=[4, 2, 1, 0.5], norm_cfg=norm_cfg),
    decode_head=dict(
        type='mmseg.UPerHead',
        in_channels=[768, 768, 768, 768],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=768,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='mmseg.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    auxiliary_head=dict(
        type='mmseg.FCNHead',
        in_channels=768,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='mmseg.CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4)),
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))
