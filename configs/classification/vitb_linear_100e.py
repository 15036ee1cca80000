# Linear probing of a pretrained ViT-B/16 on ImageNet-1k, on 8 GPUs: 78.9 % by mmpretrain.
#   tools/dist_train.sh configs/classification/vitb_linear_100e.py 8 --init-from CHECKPOINT
_base_ = [
    '../_base_/models/vitb_linear_probe.py',
    '../_base_/datasets/imagenet_linear_224.py',
    '../_base_/schedules/linear_100e.py',
    '../_base_/default_runtime_downstream.py',
]
default_scope = 'mmpretrain'
visualizer = dict(type='mmpretrain.UniversalVisualizer')
# 2048 x 8 GPUs x 1 = 16384
train_dataloader = dict(batch_size=2048)
default_hooks = dict(
    checkpoint=dict(interval=5, max_keep_ckpts=2, save_best='accuracy/top1', rule='greater'))
