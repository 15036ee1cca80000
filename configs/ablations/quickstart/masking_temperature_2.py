# Semantic masking at temperature 2: drawn in proportion to importance ** 0.5.
_base_ = '../../quickstart/milan.py'
model = dict(mask_generator=dict(temperature=2))
