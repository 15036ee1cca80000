# What the paper's tables leave open, at the quickstart's scale: how much is masked, how sharply
# importance is followed, the size of the decoder, and two more teachers.
_base_ = './paper.py'
title = 'Ratio, temperature, decoder and teachers at the quickstart\'s scale'

prepare = [
    dict(images={{_base_.images}}),
    dict(
        clip={{_base_.clip}},
        clip_other=dict(
            tool='train_clip.py',
            arguments=['--data-root', '{work}/data/train', '--steps', '500', '--seed', '1',
                       '--width', '192', '--patch-size', '16', '--out', '{work}/clip_other'],
            makes='{work}/clip_other/open_clip_model.safetensors')),
]
taught = {{_base_.taught}}
here = 'configs/ablations/quickstart/'
cells = dict(
    _delete_=True,
    milan=dict(title='MILAN', config='configs/quickstart/milan.py', options=taught),
    masking_ratio_40=dict(
        title='40 % masked', group='ratio', config=here + 'masking_ratio_40.py', options=taught),
    masking_ratio_60=dict(
        title='60 % masked', group='ratio', config=here + 'masking_ratio_60.py', options=taught),
    masking_ratio_90=dict(
        title='90 % masked', group='ratio', config=here + 'masking_ratio_90.py', options=taught),
    masking_temperature_half=dict(
        title='temperature 1/2', group='temperature',
        config=here + 'masking_temperature_half.py', options=taught),
    masking_temperature_2=dict(
        title='temperature 2', group='temperature', config=here + 'masking_temperature_2.py',
        options=taught),
    decoder_depth_4=dict(
        title='4 blocks instead of 2', group='decoder', config=here + 'decoder_depth_4.py',
        options=taught),
    decoder_width_48=dict(
        title='48 wide instead of 96', group='decoder', config=here + 'decoder_width_48.py',
        options=taught),
    decoder_width_192=dict(
        title='192 wide instead of 96', group='decoder', config=here + 'decoder_width_192.py',
        options=taught),
    target_clip_other=dict(
        title='another CLIP', group='teacher', config=here + 'target_clip_other.py',
        options={
            'model.target_generator.pretrained': '{work}/clip_other',
            'randomness.seed': '{seed}',
            'train_dataloader.num_workers': '0',
            'train_dataloader.persistent_workers': 'False',
        }),
    target_ema=dict(
        title="the student's average", group='teacher', config=here + 'target_ema.py',
        options={{_base_.common}}),
)
