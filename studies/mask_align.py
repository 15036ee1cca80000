# MaskAlign against MILAN at the quickstart's scale: as many steps, and as much time. A step of
# MaskAlign has no decoder, so that more of them fit; how many was measured (docs/evidence.md).
_base_ = './paper.py'
title = 'MaskAlign and MILAN at the quickstart\'s scale'

prepare = [
    dict(
        pictures=dict(
            tool='quickstart.py',
            arguments=['--stage', 'pictures', '--work-dir', '{work}', '--pictures', '{pictures}'],
            makes='{work}/data/meta.json')),
    dict(
        clip=dict(
            tool='train_clip.py',
            arguments=['--data', '{work}/data/train', '--steps', '500', '--seed', '0', '--out',
                       '{work}/clip'],
            makes='{work}/clip/open_clip_model.safetensors')),
]
taught = {{_base_.taught}}
cells = dict(
    _delete_=True,
    milan=dict(title='MILAN', config='configs/quickstart/milan.py', options=taught),
    equal_steps=dict(
        title='MaskAlign, as many steps', config='configs/quickstart/mask_align.py',
        options=taught),
    equal_time=dict(
        title='MaskAlign, as much time', config='configs/quickstart/mask_align.py',
        options=taught, arguments=['--epochs', '5']),
)
