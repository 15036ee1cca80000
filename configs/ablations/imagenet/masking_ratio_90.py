# 90 % of the patches masked instead of 75 %.
_base_ = '../../milan/vitb_pretrain.py'
model = dict(mask_generator=dict(mask_ratio=.9))
