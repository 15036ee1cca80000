# Finetuning on one's own classes, on one GPU: DIR/<train|val>/<class>/<image>.
#   milan train configs/classification/own_finetune.py --data-root DIR --init-from CHECKPOINT
# num_classes None: counted from the class folders of DIR/train at the start. The learning rate
# follows the batch; --epochs N for another length.
_base_ = './vitb_finetune_100e.py'
data_root = 'data/own'
effective_batch = 256
model = dict(head=dict(num_classes=None))
data_preprocessor = dict(num_classes=None)
# 64 x 1 GPU x 4 accumulated = 256
train_dataloader = dict(batch_size=64, dataset=dict(data_root=data_root))
val_dataloader = dict(
    batch_size=64, dataset=dict(data_root=data_root, classes_from='train'))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1, ))
test_evaluator = val_evaluator
base_lr = 1e-4  # for 256 images
optim_wrapper = dict(
    accumulative_counts=4, optimizer=dict(lr=base_lr * effective_batch / 256))
auto_scale_lr = dict(base_batch_size=effective_batch, enable=True)
