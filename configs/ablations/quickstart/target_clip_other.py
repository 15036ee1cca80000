# Another CLIP as the teacher: wider, with patches of 16, fed an image resized to the student's
# grid.
_base_ = '../../quickstart/milan.py'
model = dict(target_generator=dict(pretrained='work_dirs/ablations/clip_other'))
