# UperNet with a pretrained ViT-L/16 on ADE20K, 160k iterations, on 8 GPUs. Blocks as BEiT has them
# for this size. Nobody of the MAE family has published layer decay and drop path for it: ViT-B
# segments with those of its finetuning, so ViT-L takes those of its own (MAE, table 9).
_base_ = './vitb_ade20k_512_160k.py'
model = dict(
    backbone=dict(arch='vit-l', out_indices=(7, 11, 15, 23), drop_path_rate=0.2),
    neck=dict(embed_dim=1024),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024], channels=1024),
    auxiliary_head=dict(in_channels=1024))
# 2 x 8 GPUs x 1 = 16
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.75))
