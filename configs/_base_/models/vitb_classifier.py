# ViT-B/16 for classification: the mean of the patch tokens, a norm, a linear map (MILAN's and MAE's
# finetuning, with global pooling). The final norm of pretraining is left out.
model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='milan_mm.MaskedVisionTransformer',
        arch='vit-b',
        img_size=224,
        patch_size=16,
        positions='learned',
        out_type='avg_featmap',
        final_norm=False,
        drop_path_rate=0.1,
        init_cfg=dict(type='milan_mm.PretrainedViT', checkpoint=None)),
    neck=None,
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        # Published as a normal distribution cut off at 2, which is 100,000 deviations: not at all.
        init_cfg=dict(type='Normal', layer='Linear', std=2e-5)),
    # One of the two for each batch, each half of the time.
    train_cfg=dict(
        augments=[dict(type='mmpretrain.Mixup', alpha=0.8),
                  dict(type='mmpretrain.CutMix', alpha=1.0)],
        probs=[0.5, 0.5]))
