# Does what studies/paper.py finds of decoder and masking hold with more than twice the steps?
_base_ = './paper.py'
title = 'Decoder and masking at the quickstart\'s scale, 9 epochs instead of 4'
minutes = 4.5

prepare = [dict(images=_base_.images), dict(clip=_base_.clip)]
train = dict(
    arguments=['{config}', '--data-root', '{work}/data/train', '--work-dir', '{run}/train',
               '--epochs', '9', '--auto-scale-lr'])
cells = dict(
    _delete_=True,
    milan=_base_.cells.milan,
    target_alone=_base_.cells.target_alone,
    decoder_mae=_base_.cells.decoder_mae,
    masking_random=_base_.cells.masking_random,
)
