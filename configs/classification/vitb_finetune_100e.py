# Finetuning a pretrained ViT-B/16 on ImageNet-1k, 100 epochs, on 8 GPUs: 85.4 % in the paper.
#   tools/dist_train.sh configs/classification/vitb_finetune_100e.py 8 --init-from CHECKPOINT
_base_ = [
    '../_base_/models/vitb_classifier.py',
    '../_base_/datasets/imagenet_finetune_224.py',
    '../_base_/schedules/finetune_100e.py',
    '../_base_/default_runtime_downstream.py',
]
default_scope = 'mmpretrain'
visualizer = dict(type='mmpretrain.UniversalVisualizer')
# 128 x 8 GPUs x 1 = 1024
train_dataloader = dict(batch_size=128)
default_hooks = dict(
    checkpoint=dict(interval=5, max_keep_ckpts=2, save_best='accuracy/top1', rule='greater'))
