# A prompting decoder 48 wide instead of 96.
_base_ = '../../quickstart/milan.py'
model = dict(neck=dict(decoder_embed_dim=48))
