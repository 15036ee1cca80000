# A prompting decoder of 4 blocks instead of 2.
_base_ = '../../quickstart/milan.py'
model = dict(neck=dict(decoder_depth=4))
