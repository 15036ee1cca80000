# The comparisons of the MILAN paper (target, decoder, masking, loss) at the quickstart's scale:
# small networks, small images (the drawings, or --data-root DIR), minutes a run, no GPU. One CLIP
# and one split of the images for all runs; a seed is other first weights, masks and order of the
# student.
title = 'The paper\'s ablations at the quickstart\'s scale'
base = 'milan'
seeds = 3
# Of one run beside another on 2 cores, measured; used until there are finished runs.
minutes = 2.3
megabytes = 30

# What the other studies of this scale make first too.
images = dict(
    tool='quickstart.py',
    arguments=['--stage', 'images', '--work-dir', '{work}', '--data-root', '{images}'],
    makes='{work}/data/meta.json')
clip = dict(
    tool='train_clip.py',
    arguments=['--data-root', '{work}/data/train', '--steps', '500', '--seed', '0', '--out',
               '{work}/clip'],
    makes='{work}/clip/open_clip_model.safetensors')
epochs = ['--epochs', '4', '--auto-scale-lr']
quiet = ['--cfg-options', 'train_dataloader.num_workers=0',
         'train_dataloader.persistent_workers=False']
prepare = [
    dict(images=images),
    dict(
        clip=clip,
        siglip=dict(
            tool='train_clip.py',
            arguments=['--data-root', '{work}/data/train', '--steps', '500', '--seed', '0',
                       '--loss', 'sigmoid', '--out', '{work}/siglip'],
            makes='{work}/siglip/open_clip_model.safetensors'),
        mae=dict(
            tool='train.py',
            arguments=['configs/quickstart/mae.py', '--data-root', '{work}/data/train',
                       '--work-dir', '{work}/mae', *epochs, *quiet, 'randomness.seed=100'],
            makes='{work}/mae/epoch_4.pth')),
]
train = dict(
    tool='train.py',
    arguments=['{config}', '--data-root', '{work}/data/train', '--work-dir', '{run}/train',
               *epochs])
measure = [
    dict(
        tool='eval_features.py',
        arguments=['{checkpoint}', '--data', '{work}/data', '--crop-ratio', '1', '--workers', '0',
                   '--feature', 'both', '--out', '{run}/eval.json'],
        reads='{run}/eval.json',
        metrics={
            'k-NN, CLS': 'knn.top1',
            'linear, CLS': 'linear.top1',
            'k-NN, patches': 'pooled.knn.top1',
            'linear, patches': 'pooled.linear.top1',
        })
]

common = {
    'randomness.seed': '{seed}',
    'train_dataloader.num_workers': '0',
    'train_dataloader.persistent_workers': 'False',
}
taught = {'model.target_generator.pretrained': '{work}/clip', **common}
looked = {'model.importance_generator.pretrained': '{work}/clip', **common}
here = 'configs/ablations/quickstart/'
cells = dict(
    milan=dict(title='MILAN', config='configs/quickstart/milan.py', options=taught),
    mae=dict(title='MAE', group='step by step', config='configs/quickstart/mae.py', options=common),
    target_alone=dict(
        title='CLIP target, MAE decoder, random masks', group='step by step',
        config=here + 'target_alone.py', options=taught),
    target_pixels_normalised=dict(
        title='normalised pixels', group='target', config=here + 'target_pixels_normalised.py',
        options=looked),
    target_pixels_raw=dict(
        title='raw pixels', group='target', config=here + 'target_pixels_raw.py', options=looked),
    target_mae=dict(
        title='MAE features', group='target', config=here + 'target_mae.py',
        options={'model.target_generator.checkpoint': '{work}/mae/epoch_4.pth', **common}),
    target_siglip=dict(
        title='SigLIP features', group='target', config=here + 'target_siglip.py',
        options={**common, 'model.target_generator.pretrained': '{work}/siglip'}),
    decoder_mae=dict(
        title="MAE's decoder", group='decoder', config=here + 'decoder_mae.py', options=taught),
    decoder_depth_1=dict(
        title='1 block instead of 2', group='decoder', config=here + 'decoder_depth_1.py',
        options=taught),
    masking_random=dict(
        title='random', group='masking', config=here + 'masking_random.py', options=taught),
    masking_blockwise=dict(
        title='block-wise', group='masking', config=here + 'masking_blockwise.py', options=taught),
    masking_least_important=dict(
        title='least important visible', group='masking',
        config=here + 'masking_least_important.py', options=taught),
    loss_masked=dict(
        title='masked patches only', group='loss', config=here + 'loss_masked.py', options=taught),
)
