# The student starts as CLIP's own image tower: a file of OpenAI's or open_clip's, or a Hugging Face
# folder, ViT-B/16:
#   milan train configs/milan/own_images_from_clip.py --data-root DIR --init-from FILE
# CLIP's ViT has a norm before its blocks, QuickGELU (OpenAI's; LAION's have GELU: leave layer_cfgs
# out for them) and norms with eps 1e-5.
_base_ = './own_images_continue.py'
model = dict(
    backbone=dict(
        pre_norm=True,
        layer_cfgs=dict(act_cfg=dict(type='mmpretrain.QuickGELU')),
        norm_cfg=dict(type='LN', eps=1e-5)))
