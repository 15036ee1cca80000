# Raw pixels as the target, with their loss, the squared error. Masking and decoder stay MILAN's:
# the importance is still CLIP's.
_base_ = '../../milan/vitb_pretrain.py'
model = dict(
    target_generator=dict(
        _delete_=True, type='milan_mm.PixelTargetGenerator', patch_size=16, norm_pix=False),
    importance_generator=dict(
        type='milan_mm.CLIPTargetGenerator', model='ViT-B-16-quickgelu', pretrained='openai'),
    head=dict(loss=dict(type='milan_mm.MSEReconstructionLoss')))
