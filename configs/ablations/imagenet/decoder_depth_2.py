# A prompting decoder of 2 blocks instead of 8.
_base_ = '../../milan/vitb_pretrain.py'
model = dict(neck=dict(decoder_depth=2))
