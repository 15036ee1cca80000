# A prompting decoder 128 wide instead of 512.
_base_ = '../../milan/vitb_pretrain.py'
model = dict(neck=dict(decoder_embed_dim=128))
