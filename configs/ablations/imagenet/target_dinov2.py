# A self-supervised teacher: DINOv2 ViT-B/14, its images resized to the student's grid.
_base_ = '../../milan/vitb_pretrain.py'
model = dict(
    target_generator=dict(
        _delete_=True,
        type='milan_mm.TimmTargetGenerator',
        model='vit_base_patch14_dinov2',
        pretrained='lvd142m'))
