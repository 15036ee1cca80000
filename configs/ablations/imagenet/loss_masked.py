# The loss on masked patches alone instead of on all tokens.
_base_ = '../../milan/vitb_pretrain.py'
model = dict(head=dict(tokens='masked'))
