# The comparisons of the MILAN paper (target, decoder, masking, loss) at the quickstart's scale:
# small networks, small images (the drawings, or --data-root DIR), minutes a run, no GPU. One CLIP,
# the one that comes with the package, and one split of the images for all runs; a seed is other
# first weights, masks and order of the student.
_base_ = './_base_/changes.py'
title = 'The paper\'s ablations at the quickstart\'s scale'
base = 'milan'
seeds = 3
# Of one run beside another on 2 cores, used until there are finished runs. An estimate: 2.4 was
# measured in float32; a step in bfloat16 takes half of its time, starting and evaluating does not.
minutes = 1.5
megabytes = 30

# What the other studies of this scale make first too.
images = dict(
    tool='quickstart.py',
    arguments=['--stage', 'images', '--work-dir', '{work}', '--data-root', '{images}'],
    makes='{work}/data/meta.json')
# What teaches, unless a cell says otherwise.
teacher = '{demo}/teacher'
clip = dict(
    tool='train_clip.py',
    arguments=['--data-root', '{work}/data/train', '--steps', '500', '--seed', '0', '--out',
               '{work}/clip'],
    makes='{work}/clip/open_clip_model.safetensors')
epochs = ['--epochs', '4', '--auto-scale-lr', '--amp']
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
            arguments=['milan_mm::quickstart/mae.py', '--data-root', '{work}/data/train',
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
taught = {'model.target_generator.pretrained': teacher, **common}
looked = {'model.importance_generator.pretrained': teacher, **common}
milan = 'milan_mm::quickstart/milan.py'
changes = _base_.changes
# Pixels with their loss, the squared error; the importance for masking and decoder is still CLIP's.
pixels = {
    'model.importance_generator': dict(type='milan_mm.CLIPTargetGenerator', pretrained=None),
    'model.head.loss.type': 'milan_mm.MSEReconstructionLoss',
}
cells = dict(
    milan=dict(title='MILAN', config=milan, options=taught),
    mae=dict(title='MAE', group='step by step', config='milan_mm::quickstart/mae.py',
             options=common),
    target_alone=dict(
        title='CLIP target, MAE decoder, random masks', group='step by step', config=milan,
        changes=changes['target_alone'], options=taught),
    target_pixels_normalised=dict(
        title='normalised pixels', group='target', config=milan, options=looked,
        changes={**pixels, 'model.target_generator': dict(
            _delete_=True, type='milan_mm.PixelTargetGenerator', patch_size=8, norm_pix=True)}),
    target_pixels_raw=dict(
        title='raw pixels', group='target', config=milan, options=looked,
        changes={**pixels, 'model.target_generator': dict(
            _delete_=True, type='milan_mm.PixelTargetGenerator', patch_size=8, norm_pix=False)}),
    # The features and the CLS attention of an MAE of the same images.
    target_mae=dict(
        title='MAE features', group='target', config=milan,
        changes={'model.target_generator': dict(
            _delete_=True, type='milan_mm.EncoderTargetGenerator', checkpoint=None)},
        options={'model.target_generator.checkpoint': '{work}/mae/epoch_4.pth', **common}),
    # CLIPs of 500 steps on these images, with the softmax loss and with SigLIP's sigmoid one. The
    # losses are compared by these two, which were trained alike, and not with the base.
    target_clip_short=dict(
        title='CLIP of 500 steps', group='target', config=milan,
        options={**common, 'model.target_generator.pretrained': '{work}/clip'}),
    target_siglip=dict(
        title='SigLIP of 500 steps', group='target', config=milan,
        options={**common, 'model.target_generator.pretrained': '{work}/siglip'}),
    decoder_mae=dict(
        title="MAE's decoder", group='decoder', config=milan, changes=changes['decoder_mae'],
        options=taught),
    decoder_depth_1=dict(
        title='1 block instead of 2', group='decoder', config=milan,
        changes={'model.neck.decoder_depth': 1}, options=taught),
    masking_random=dict(
        title='random', group='masking', config=milan, changes=changes['masking_random'],
        options=taught),
    masking_blockwise=dict(
        title='block-wise', group='masking', config=milan, changes=changes['masking_blockwise'],
        options=taught),
    masking_least_important=dict(
        title='least important visible', group='masking', config=milan,
        changes=changes['masking_least_important'], options=taught),
    loss_masked=dict(
        title='masked patches only', group='loss', config=milan, changes=changes['loss_masked'],
        options=taught),
)
