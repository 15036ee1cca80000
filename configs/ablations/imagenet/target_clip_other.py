# Another CLIP as the teacher: ViT-L/14, its images resized to the student's grid.
_base_ = '../../milan/vitb_pretrain.py'
model = dict(
    target_generator=dict(model='ViT-L-14-quickgelu', pretrained='openai'))
