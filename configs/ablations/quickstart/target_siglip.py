# A caption-supervised teacher of another loss: the same tower trained with SigLIP's sigmoid loss.
_base_ = '../../quickstart/milan.py'
model = dict(target_generator=dict(pretrained='work_dirs/ablations/siglip'))
