# Pixels normalised patch by patch as the target, with their loss, the squared error. Masking and
# decoder stay MILAN's: the importance is still CLIP's.
_base_ = '../../quickstart/milan.py'
model = dict(
    target_generator=dict(
        _delete_=True, type='milan_mm.PixelTargetGenerator', patch_size=8, norm_pix=True),
    importance_generator=dict(
        type='milan_mm.CLIPTargetGenerator', pretrained='work_dirs/quickstart/teacher'),
    head=dict(loss=dict(type='milan_mm.MSEReconstructionLoss')))
