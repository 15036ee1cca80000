# What makes a step cheaper, against the paper's step, at the quickstart's scale: k-NN on the way,
# so that the time to the base's last k-NN can be read off. After the runs:
#   milan analyze-logs work_dirs/studies/fast --time-to eval/knn_top1
#   milan analyze-logs work_dirs/studies/fast --apart loss
# Cells with k masks of an image take 1/k of the images a step, so that student views, steps and
# learning rate are the base's.
_base_ = './paper.py'
title = 'Time to quality at the quickstart\'s scale'
base = 'exact'
minutes = 6
megabytes = 30

prepare = [dict(images=_base_.images)]
train = dict(
    tool='train.py',
    arguments=['{config}', '--data-root', '{work}/data/train', '--work-dir', '{run}/train',
               '--epochs', '9', '--auto-scale-lr'])
measure = [
    dict(
        tool='eval_features.py',
        arguments=['{checkpoint}', '--data', '{work}/data', '--crop-ratio', '1', '--workers', '0',
                   '--out', '{run}/eval.json'],
        reads='{run}/eval.json',
        metrics={'k-NN, CLS': 'knn.top1', 'linear, CLS': 'linear.top1'})
]

watched = {
    'default_hooks.features.data': '{work}/data',
    'default_hooks.features.interval': '1',
    'default_hooks.features.crop_ratio': '1',
    'default_hooks.logger.interval': '10',
    'log_processor.window_size': '10',
}
options = {**_base_.taught, **watched}
milan = _base_.milan


def views(count):
    """k masks of an image; ``auto_scale_lr`` keeps the learning rate."""
    return {
        'model.mask_generator.views': count,
        'train_dataloader.batch_size': 64 // count,
        'auto_scale_lr.base_batch_size': 64 // count,
    }


small = {'+train_dataloader.dataset.pipeline.1.phases': ((48, 5), )}  # of 64 patches 36
cells = dict(
    _delete_=True,
    exact=dict(title='MILAN, float32', config=milan, options=options),
    bf16=dict(title='--amp', group='precision', config=milan, options=options,
              arguments=['--amp']),
    teacher_bf16=dict(
        title='teacher alone in bfloat16', group='precision', config=milan, options=options,
        changes={'model.target_generator.amp': 'bf16'}),
    views_2=dict(
        title='2 masks of an image, 5 epochs', group='views', config=milan, options=options,
        changes=views(2), arguments=['--epochs', '5']),
    views_4=dict(
        title='4 masks of an image, 3 epochs', group='views', config=milan, options=options,
        changes=views(4), arguments=['--epochs', '3']),
    predicted_half=dict(
        title='half of the masked patches predicted', group='decoder', config=milan,
        options=options, changes={'model.mask_generator.predicted': .5}),
    depth_1=dict(
        title='decoder of 1 block instead of 2', group='decoder', config=milan, options=options,
        changes={'model.neck.decoder_depth': 1}),
    width_64=dict(
        title='decoder 64 wide instead of 96', group='decoder', config=milan, options=options,
        changes={'model.neck.decoder_embed_dim': 64}),
    small_first=dict(
        title='48 px in the first 5 of 9 epochs', group='size', config=milan, options=options,
        changes=small),
    # A file of targets takes 17 KB a view and stays in the run's folder.
    cached=dict(
        title='2 fixed crops of an image, targets from the disk', group='views', config=milan,
        options={**_base_.common, **watched,
                 'model.target_generator.teacher.pretrained': _base_.teacher},
        changes={
            'model.target_generator': dict(
                _delete_=True, type='milan_mm.CachedTargetGenerator',
                teacher=dict(type='milan_mm.CLIPTargetGenerator', pretrained=None)),
            '+train_dataloader.dataset.fixed_views': 2}),
    together=dict(
        title='--amp, 48 px first, half predicted', group='together', config=milan,
        options=options, changes={**small, 'model.mask_generator.predicted': .5},
        arguments=['--amp']),
)
