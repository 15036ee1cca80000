# The loss on masked patches alone instead of on all tokens.
_base_ = '../../quickstart/milan.py'
model = dict(head=dict(tokens='masked'))
