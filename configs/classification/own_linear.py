# A linear probe on one's own classes, on one GPU: DIR/<train|val>/<class>/<image>.
#   milan train configs/classification/own_linear.py --data-root DIR --init-from CHECKPOINT
# num_classes None: counted from the class folders of DIR/train at the start. LARS is made for
# batches of thousands; with some hundred images AdamW takes its place.
_base_ = './vitb_linear_100e.py'
data_root = 'data/own'
effective_batch = 256
base_lr = 1e-3  # for 256 images
model = dict(head=dict(num_classes=None))
data_preprocessor = dict(num_classes=None)
# 64 x 1 GPU x 4 accumulated = 256
train_dataloader = dict(batch_size=64, dataset=dict(data_root=data_root))
val_dataloader = dict(
    batch_size=64, dataset=dict(data_root=data_root, classes_from='train'))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1, ))
test_evaluator = val_evaluator
optim_wrapper = dict(
    accumulative_counts=4,
    optimizer=dict(_delete_=True, type='AdamW', lr=base_lr * effective_batch / 256,
                   weight_decay=0.),
    paramwise_cfg=dict(_delete_=True, layer_decay_rate=1.0))
auto_scale_lr = dict(base_batch_size=effective_batch, enable=True)
