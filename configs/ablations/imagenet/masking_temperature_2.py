# Semantic masking at temperature 2: drawn in proportion to importance ** 0.5.
_base_ = '../../milan/vitb_pretrain.py'
model = dict(mask_generator=dict(temperature=2))
