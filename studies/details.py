# What the paper's tables leave open, at the quickstart's scale: how much is masked, how sharply
# importance is followed, the size of the decoder, and two more teachers.
_base_ = './paper.py'
title = 'Ratio, temperature, decoder and teachers at the quickstart\'s scale'

prepare = [
    dict(images=_base_.images),
    dict(
        clip_other=dict(
            tool='train_clip.py',
            arguments=['--data-root', '{work}/data/train', '--steps', '500', '--seed', '1',
                       '--width', '192', '--patch-size', '16', '--out', '{work}/clip_other'],
            makes='{work}/clip_other/open_clip_model.safetensors')),
]
taught = _base_.taught
milan = _base_.milan
changes = _base_.changes
cells = dict(
    _delete_=True,
    milan=_base_.cells.milan,
    **{name: dict(title=title, group=name.split('_')[1], config=milan, changes=changes[name],
                  options=taught)
       for name, title in dict(
           masking_ratio_40='40 % masked', masking_ratio_60='60 % masked',
           masking_ratio_90='90 % masked', masking_temperature_half='temperature 1/2',
           masking_temperature_2='temperature 2').items()},
    decoder_depth_4=dict(
        title='4 blocks instead of 2', group='decoder', config=milan,
        changes={'model.neck.decoder_depth': 4}, options=taught),
    decoder_width_48=dict(
        title='48 wide instead of 96', group='decoder', config=milan,
        changes={'model.neck.decoder_embed_dim': 48}, options=taught),
    decoder_width_192=dict(
        title='192 wide instead of 96', group='decoder', config=milan,
        changes={'model.neck.decoder_embed_dim': 192}, options=taught),
    # Wider, with patches of 16, fed an image resized to the student's grid.
    target_clip_other=dict(
        title='another CLIP, of 500 steps', group='teacher', config=milan,
        options={**taught, 'model.target_generator.pretrained': '{work}/clip_other'}),
    # No teacher from outside: an average of the student's own past, as in data2vec. A control.
    target_ema=dict(
        title="the student's average", group='teacher', config=milan,
        changes={
            'model.target_generator': dict(
                _delete_=True,
                type='milan_mm.EMATargetGenerator',
                arch=dict(embed_dims=128, num_layers=6, num_heads=4, feedforward_channels=512),
                momentum=0.99,  # of 700 steps and not of 500,000
                levels=3),
            'custom_hooks': [dict(type='milan_mm.EMATeacherHook')],
        },
        options=_base_.common),
)
