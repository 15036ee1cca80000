# A self-supervised teacher: the features and the CLS attention of an MAE of the same images.
_base_ = '../../quickstart/milan.py'
model = dict(
    target_generator=dict(
        _delete_=True,
        type='milan_mm.EncoderTargetGenerator',
        checkpoint='work_dirs/quickstart/mae/epoch_9.pth'))
