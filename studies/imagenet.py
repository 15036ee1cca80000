# The paper's comparisons on ImageNet-1k with ViT-B/16, on 8 GPUs; each cell is a whole pretraining.
# --only picks cells; --dry-run says what they cost.
_base_ = './_base_/changes.py'
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
        arguments=['milan_mm::classification/vitb_finetune_100e.py', '8', '--init-from',
                   '{checkpoint}', '--data-root', 'data/imagenet', '--work-dir',
                   '{run}/finetune'],
        reads='{run}/finetune',
        metrics={'finetuning': 'accuracy/top1'}),
]

seed = {'randomness.seed': '{seed}'}
milan = 'milan_mm::milan/vitb_pretrain.py'
# Pixels with their loss, the squared error; the importance for masking and decoder is still CLIP's.
pixels = {
    'model.importance_generator': dict(
        type='milan_mm.CLIPTargetGenerator', model='ViT-B-16-quickgelu', pretrained='openai'),
    'model.head.loss.type': 'milan_mm.MSEReconstructionLoss',
}
changes = dict(
    _base_.changes,
    target_pixels_raw={**pixels, 'model.target_generator': dict(
        _delete_=True, type='milan_mm.PixelTargetGenerator', patch_size=16, norm_pix=False)},
    target_pixels_normalised={**pixels, 'model.target_generator': dict(
        _delete_=True, type='milan_mm.PixelTargetGenerator', patch_size=16, norm_pix=True)},
    # Another CLIP: its images are resized to the student's grid.
    target_clip_other={
        'model.target_generator.model': 'ViT-L-14-quickgelu',
        'model.target_generator.pretrained': 'openai'},
    # Supervised by captions, with another loss. Its pooling query gives the importance.
    target_siglip={'model.target_generator': dict(
        model='ViT-B-16-SigLIP', pretrained='webli', normalize='clip')},
    # Self-supervised; the features and the CLS attention. DINOv2's images are resized to the grid.
    **{f'target_{name}': {'model.target_generator': dict(
        _delete_=True, type='milan_mm.TimmTargetGenerator', model=model, pretrained=tag)}
       for name, model, tag in (('dino', 'vit_base_patch16_224', 'dino'),
                                ('dinov2', 'vit_base_patch14_dinov2', 'lvd142m'),
                                ('mae', 'vit_base_patch16_224', 'mae'))},
    # No teacher from outside: an average of the student's own past, as in data2vec. A control.
    target_ema={
        'model.target_generator': dict(
            _delete_=True, type='milan_mm.EMATargetGenerator', arch='vit-b', levels=6),
        'custom_hooks': [dict(type='milan_mm.EMATeacherHook')]},
    # Instead of 8 blocks, 512 wide.
    **{f'decoder_depth_{depth}': {'model.neck.decoder_depth': depth} for depth in (1, 2, 4, 12)},
    **{f'decoder_width_{width}': {'model.neck.decoder_embed_dim': width}
       for width in (128, 256, 768)},
)
cells = dict(
    milan=dict(title='MILAN', config=milan, options=seed),
    mae=dict(title='MAE', group='step by step', config='milan_mm::mae/vitb_pretrain.py',
             options=seed),
    **{name: dict(group=group, config=milan, changes=change, options=seed)
       for group in ('target', 'decoder', 'masking', 'loss') for name, change in changes.items()
       if name.startswith(group)})
cells['target_alone'].update(
    title='CLIP target, MAE decoder, random masks', group='step by step')
