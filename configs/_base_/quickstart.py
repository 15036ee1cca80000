# What MILAN and MAE share in the quickstart: a ViT of 6 x 128, 64 px, patches of 8, a short run on
# a CPU. The paper's masking, loss, augmentation and optimizer; smaller widths and fewer steps.
_base_ = ['./datasets/imagenet_224.py', './schedules/pretrain_400e.py',
          './default_runtime.py']
effective_batch = 64
max_epochs = 9
warmup_epochs = 1

model = dict(
    backbone=dict(
        arch=dict(embed_dims=128, num_layers=6, num_heads=4, feedforward_channels=512),
        img_size=64,
        patch_size=8),
    neck=dict(decoder_embed_dim=96, decoder_depth=2, decoder_num_heads=4))

train_pipeline = [
    dict(type='milan_mm.LoadPILImage'),
    dict(type='milan_mm.RandomResizedCropAndFlip', size=64, scale=(0.2, 1.0)),
    dict(type='milan_mm.PackImageInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    pin_memory=False,
    dataset=dict(data_root='work_dirs/quickstart/data/train', pipeline=train_pipeline))

optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=effective_batch)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=warmup_epochs,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0., by_epoch=True, begin=warmup_epochs, end=max_epochs,
         T_max=max_epochs - warmup_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(
    describe=dict(crop_ratio=1),  # images without a margin, which are evaluated whole
    logger=dict(interval=20), checkpoint=dict(interval=max_epochs, max_keep_ckpts=1))
log_processor = dict(window_size=20)
env_cfg = dict(cudnn_benchmark=False)
