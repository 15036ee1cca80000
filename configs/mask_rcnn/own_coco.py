# Mask R-CNN with a pretrained ViT-B/16 on one's own images, labelled in COCO's format with boxes
# and masks, or with boxes alone, on one GPU:
#   DIR/annotations/<train|val>.json and the images in DIR/<train|val>/
# or in YOLO's, with a data.yaml in DIR:
#   milan train configs/mask_rcnn/own_coco.py --data-root DIR --init-from CHECKPOINT
# num_classes None: the categories are read from the training file at the start. The learning rate
# follows the batch; --epochs N for another length. Files of other names:
#   --cfg-options train_dataloader.dataset.ann_file=train/_annotations.coco.json
# and the same for val_dataloader, test_dataloader, and with DIR before it val_evaluator.ann_file
# and test_evaluator.ann_file. Before the training all of the data is looked through, as by:
#   milan doctor --data DIR --task det
_base_ = './vitb_coco_lsj1024_100e.py'
data_root = 'data/own_coco'
effective_batch = 16
accumulated = 8
warmup = 250
max_epochs = 50
model = dict(roi_head=dict(bbox_head=dict(num_classes=None), mask_head=dict(num_classes=None)))
# 2 x 1 GPU x 8 accumulated = 16
train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        data_root=data_root, ann_file='annotations/train.json', data_prefix=dict(img='train/')))
val_dataloader = dict(
    dataset=dict(
        data_root=data_root, ann_file='annotations/val.json', data_prefix=dict(img='val/')))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + '/annotations/val.json')
test_evaluator = val_evaluator
base_lr = 1e-4  # for 64 images
optim_wrapper = dict(
    accumulative_counts=accumulated, optimizer=dict(lr=base_lr * effective_batch / 64))
auto_scale_lr = dict(base_batch_size=effective_batch, enable=True)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=warmup * accumulated),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs,
         milestones=[round(max_epochs * 0.889), round(max_epochs * 0.963)], gamma=0.1),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
default_hooks = dict(checkpoint=dict(interval=5))
