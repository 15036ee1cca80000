# 60 % of the patches masked instead of 75 %.
_base_ = '../../quickstart/milan.py'
model = dict(mask_generator=dict(mask_ratio=.6))
