# A prompting decoder of 4 blocks instead of 8.
_base_ = '../../milan/vitb_pretrain.py'
model = dict(neck=dict(decoder_depth=4))
