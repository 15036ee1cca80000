# MAE's decoder: every token attends to every token and all of them change.
_base_ = '../../quickstart/milan.py'
model = dict(neck=dict(type='milan_mm.MAEDecoder'))
