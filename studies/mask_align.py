# MaskAlign against MILAN at the quickstart's scale: as many steps, and as much time. A step of
# MaskAlign has no decoder, so that more of them fit; how many was measured (docs/evidence.md).
_base_ = './paper.py'
title = 'MaskAlign and MILAN at the quickstart\'s scale'

prepare = [dict(images=_base_.images)]
taught = _base_.taught
cells = dict(
    _delete_=True,
    milan=_base_.cells.milan,
    equal_steps=dict(
        title='MaskAlign, as many steps', config='milan_mm::quickstart/mask_align.py',
        options=taught),
    equal_time=dict(
        title='MaskAlign, as much time', config='milan_mm::quickstart/mask_align.py',
        options=taught, arguments=['--epochs', '5']),
)
