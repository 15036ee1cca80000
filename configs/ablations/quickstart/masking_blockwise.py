# Block-wise masking, in the manner of BEiT.
_base_ = '../../quickstart/milan.py'
model = dict(mask_generator=dict(type='milan_mm.BlockwiseMaskGenerator'))
