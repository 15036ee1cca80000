# Semantic masking at temperature 0.5: drawn in proportion to importance ** 2.
_base_ = '../../quickstart/milan.py'
model = dict(mask_generator=dict(temperature=0.5))
