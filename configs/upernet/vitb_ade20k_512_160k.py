# UperNet with a pretrained ViT-B/16 on ADE20K, 160k iterations, on 8 GPUs: 52.7 mIoU in the paper.
#   tools/dist_train.sh configs/upernet/vitb_ade20k_512_160k.py 8 --init-from CHECKPOINT
_base_ = [
    '../_base_/models/upernet_vitb.py',
    '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/seg_160k.py',
    '../_base_/default_runtime_downstream.py',
]
default_scope = 'mmseg'
visualizer = dict(type='mmseg.SegLocalVisualizer')
# 2 x 8 GPUs x 1 = 16
train_dataloader = dict(batch_size=2)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=160000 // 10, max_keep_ckpts=2, save_best='mIoU',
                    rule='greater'))
log_processor = dict(by_epoch=False)
