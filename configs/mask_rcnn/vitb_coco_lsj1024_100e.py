# Mask R-CNN with a pretrained ViT-B/16 on COCO, 100 epochs, on 8 GPUs: 52.6 box AP in the paper.
#   tools/dist_train.sh configs/mask_rcnn/vitb_coco_lsj1024_100e.py 8 --init-from CHECKPOINT
_base_ = [
    '../_base_/models/mask_rcnn_vitdet_vitb.py',
    '../_base_/datasets/coco_lsj_1024.py',
    '../_base_/schedules/det_100e.py',
    '../_base_/default_runtime_downstream.py',
]
default_scope = 'mmdet'
visualizer = dict(type='mmdet.DetLocalVisualizer')
# 4 x 8 GPUs x 2 accumulated = 64
train_dataloader = dict(batch_size=4)
default_hooks = dict(
    checkpoint=dict(interval=10, max_keep_ckpts=2, save_best='coco/bbox_mAP', rule='greater'))
