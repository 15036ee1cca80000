# No teacher from outside: an average of the student's own past, as in data2vec. A control.
_base_ = '../../milan/vitb_pretrain.py'
model = dict(
    target_generator=dict(
        _delete_=True, type='milan_mm.EMATargetGenerator', arch='vit-b', levels=6))
custom_hooks = [dict(type='milan_mm.EMATeacherHook')]
