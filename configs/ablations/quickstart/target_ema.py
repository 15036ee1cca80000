# No teacher from outside: an average of the student's own past, as in data2vec. A control.
_base_ = '../../quickstart/milan.py'
model = dict(
    target_generator=dict(
        _delete_=True,
        type='milan_mm.EMATargetGenerator',
        arch=dict(embed_dims=128, num_layers=6, num_heads=4, feedforward_channels=512),
        momentum=0.99,  # of 700 steps and not of 500,000
        levels=3))
custom_hooks = [dict(type='milan_mm.EMATeacherHook')]
