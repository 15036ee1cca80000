# UperNet with a pretrained ViT-B/16 on one's own images, in ADE20K's folders, on one GPU:
#   DIR/images/<training|validation>/NAME.<jpg|jpeg|png|...>
#   DIR/annotations/<training|validation>/NAME.png   one value a pixel, 255 where none is known
#   DIR/classes.txt                                  line i, counted from 0, names value i
# Or maps of colours with CVAT's DIR/labelmap.txt, or the folders of mask_rcnn/own_coco.py.
#   milan train configs/upernet/own_ade.py --data-root DIR --init-from CHECKPOINT
# num_classes None: counted in classes.txt at the start. The learning rate follows the batch;
# --iters N for another length, in batches. A config of one's own, with this one as _base_, may say
# for each of the three sets reduce_zero_label=True where 0 is no class, as in ADE20K, and line i
# names value i + 1; metainfo=dict(classes=(...)) in place of the file. Before the training all of
# the data is looked through, as by: milan doctor --data DIR --task seg
_base_ = './vitb_ade20k_512_160k_1gpu.py'
data_root = 'data/own_ade'
effective_batch = 16
accumulated = 4
iterations = 20000 * accumulated
warmup = 1500 * accumulated
model = dict(decode_head=dict(num_classes=None), auxiliary_head=dict(num_classes=None))
# 4 x 1 GPU x 4 accumulated = 16
train_dataloader = dict(
    batch_size=4, dataset=dict(type='milan_mm.LabelMapFolder', data_root=data_root))
val_dataloader = dict(dataset=dict(type='milan_mm.LabelMapFolder', data_root=data_root))
test_dataloader = val_dataloader
optim_wrapper = dict(accumulative_counts=accumulated)
auto_scale_lr = dict(base_batch_size=effective_batch, enable=True)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=warmup),
    dict(type='PolyLR', power=1.0, eta_min=0., by_epoch=False, begin=warmup, end=iterations),
]
train_cfg = dict(max_iters=iterations, val_interval=iterations // 10)
default_hooks = dict(checkpoint=dict(interval=iterations // 10))
