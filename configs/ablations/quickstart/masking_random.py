# Random masking: every patch is equally likely to be seen, as in MAE.
_base_ = '../../quickstart/milan.py'
model = dict(mask_generator=dict(type='milan_mm.RandomMaskGenerator'))
