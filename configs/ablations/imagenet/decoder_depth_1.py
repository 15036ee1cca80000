# A prompting decoder of 1 block instead of 8.
_base_ = '../../milan/vitb_pretrain.py'
model = dict(neck=dict(decoder_depth=1))
