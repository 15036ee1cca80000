# A self-supervised teacher: the features and the CLS attention of MAE's ViT-B/16.
_base_ = '../../milan/vitb_pretrain.py'
model = dict(
    target_generator=dict(
        _delete_=True,
        type='milan_mm.TimmTargetGenerator',
        model='vit_base_patch16_224',
        pretrained='mae'))
