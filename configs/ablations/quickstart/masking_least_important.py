# The control of semantic masking: unimportant patches are likelier to be seen.
_base_ = '../../quickstart/milan.py'
model = dict(mask_generator=dict(type='milan_mm.LeastImportantMaskGenerator'))
