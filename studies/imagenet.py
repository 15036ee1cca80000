# The paper's comparisons on ImageNet-1k with ViT-B/16, on 8 GPUs; each cell is a whole pretraining.
# --only picks cells; --dry-run says what they cost.
title = 'The paper\'s ablations on ImageNet-1k, ViT-B/16'
base = 'milan'
seeds = 1
# As published for one run: 39 hours on 8 A100-40GB.
minutes = 39 * 60
# Encoder, decoder and AdamW's moments, of three checkpoints.
megabytes = 3 * 1400

train = dict(
    tool='dist_train.sh',
    arguments=['{config}', '8', '--data-root', 'data/imagenet/train', '--work-dir',
               '{run}/train'])
measure = [
    dict(
        tool='eval_features.py',
        arguments=['{checkpoint}', '--data', 'data/imagenet', '--workers', '8', '--probe', 'lars',
                   '--out', '{run}/eval.json'],
        reads='{run}/eval.json',
        metrics={'k-NN': 'knn.top1', 'linear': 'linear.top1'}),
    dict(
        tool='dist_train.sh',
        arguments=['configs/classification/vitb_finetune_100e.py', '8', '--init-from',
                   '{checkpoint}', '--data-root', 'data/imagenet', '--work-dir',
                   '{run}/finetune'],
        reads='{run}/finetune',
        metrics={'finetuning': 'accuracy/top1'}),
]

seed = {'randomness.seed': '{seed}'}
here = 'configs/ablations/imagenet/'
cells = dict(
    milan=dict(title='MILAN', config='configs/milan/vitb_pretrain.py', options=seed),
    mae=dict(title='MAE', group='step by step', config='configs/mae/vitb_pretrain.py',
             options=seed),
    target_alone=dict(
        title='CLIP target, MAE decoder, random masks', group='step by step',
        config=here + 'target_alone.py', options=seed),
    **{
        name: dict(group=name.split('_')[0], config=f'{here}{name}.py', options=seed)
        for name in ('target_pixels_raw', 'target_pixels_normalised', 'target_clip_other',
                     'target_siglip', 'target_dino', 'target_dinov2', 'target_mae', 'target_ema',
                     'decoder_mae', 'decoder_depth_1', 'decoder_depth_2', 'decoder_depth_4',
                     'decoder_depth_12', 'decoder_width_128', 'decoder_width_256',
                     'decoder_width_768', 'masking_random', 'masking_blockwise',
                     'masking_least_important', 'masking_temperature_half',
                     'masking_temperature_2', 'masking_ratio_40', 'masking_ratio_60',
                     'masking_ratio_90', 'loss_masked')
    })
