# A caption-supervised teacher of another loss: SigLIP. Its pooling query gives the importance.
_base_ = '../../milan/vitb_pretrain.py'
model = dict(
    target_generator=dict(model='ViT-B-16-SigLIP', pretrained='webli', normalize='clip'))
