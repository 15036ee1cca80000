# The prompting decoder against MAE's, 2, 4 and 8 blocks deep, in a short and in a long training:
# does it show what the prompting one keeps from being changed, once there is depth and time to
# change it? Cells of another depth are compared, and nothing is trained anew, by
#   milan ablate studies/decoder.py --resume --base decoder_prompting_8_long
_base_ = './paper.py'
title = 'Depth of the decoder at the quickstart\'s scale'
base = 'decoder_prompting_2'
# An estimate: runs of 4 epochs took 2.3 to 3.3 minutes with 4 and 8 blocks, two at a time; half of
# the runs have four times the steps.
minutes = 6

prepare = [dict(images=_base_.images)]
milan = _base_.milan
taught = _base_.taught
kinds = dict(prompting='milan_mm.PromptingDecoder', mae='milan_mm.MAEDecoder')
titles = dict(prompting='prompting', mae="MAE's")
cells = dict(
    _delete_=True,
    **{f'decoder_{kind}_{depth}{length}': dict(
        title=f'{titles[kind]}, {depth} blocks, {epochs} epochs', group='decoder', config=milan,
        options=taught, arguments=['--epochs', str(epochs)],
        changes={'model.neck.type': kinds[kind], 'model.neck.decoder_depth': depth})
       for epochs, length in ((4, ''), (16, '_long')) for depth in (2, 4, 8) for kind in kinds},
)
