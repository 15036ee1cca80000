# A prompting decoder of 1 block instead of 2.
_base_ = '../../quickstart/milan.py'
model = dict(neck=dict(decoder_depth=1))
