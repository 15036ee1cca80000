# The target alone: CLIP's features with MAE's decoder and random masking.
_base_ = '../../quickstart/milan.py'
model = dict(
    neck=dict(type='milan_mm.MAEDecoder'),
    mask_generator=dict(type='milan_mm.RandomMaskGenerator'))
