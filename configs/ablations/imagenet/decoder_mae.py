# MAE's decoder: every token attends to every token and all of them change.
_base_ = '../../milan/vitb_pretrain.py'
model = dict(neck=dict(type='milan_mm.MAEDecoder'))
