# Does what studies/paper.py finds of decoder and masking hold with more than twice the steps?
_base_ = './paper.py'
title = 'Decoder and masking at the quickstart\'s scale, 9 epochs instead of 4'
minutes = 4.5

prepare = [dict(images={{_base_.images}}), dict(clip={{_base_.clip}})]
train = dict(
    arguments=['{config}', '--data-root', '{work}/data/train', '--work-dir', '{run}/train',
               '--epochs', '9', '--auto-scale-lr'])
taught = {{_base_.taught}}
here = 'configs/ablations/quickstart/'
cells = dict(
    _delete_=True,
    milan=dict(title='MILAN', config='configs/quickstart/milan.py', options=taught),
    target_alone=dict(
        title='CLIP target, MAE decoder, random masks', config=here + 'target_alone.py',
        options=taught),
    decoder_mae=dict(title="MAE's decoder", config=here + 'decoder_mae.py', options=taught),
    masking_random=dict(
        title='random masks', config=here + 'masking_random.py', options=taught),
)
