# MILAN ViT-B/16 on one's own folder of images, on one GPU. No labels; sub-folders allowed.
#   milan train configs/milan/own_images.py --data-root DIR
# The learning rate follows the batch by the paper's rule; --epochs N for another length.
_base_ = './vitb_pretrain.py'
effective_batch = 512
# The paper's masks are semantic, and all masked patches are predicted. In short trainings on few
# images random masks gave better features, or as good ones, in every comparison so far. Predicting
# half of the masked patches, so that more of the loss is on what the encoder has computed itself,
# takes less time and gave better ones still after 4 epochs, as good ones after 16
# (docs/evidence.md). Back to the paper's:
#   --cfg-options model.mask_generator.type=milan_mm.SemanticMaskGenerator \
#       model.mask_generator.predicted=1
# `milan tune` tries these on your images.
model = dict(mask_generator=dict(type='milan_mm.RandomMaskGenerator', predicted=0.5))
train_pipeline = [
    # JPEGs are decoded at the scale that the crop needs: 1.4 to 3.2 times the images a second of
    # the paper's configs, which decode them wholly (docs/data.md). Pixels differ by about half a
    # level of 255.
    dict(type='milan_mm.LoadPILImage', scaled_jpegs=True),
    dict(type='milan_mm.RandomResizedCropAndFlip', size=224, scale=(0.2, 1.0)),
    dict(type='milan_mm.PackImageInputs'),
]
# 128 x 1 GPU x 4 accumulated = 512
train_dataloader = dict(
    batch_size=128, dataset=dict(data_root='data/images', pipeline=train_pipeline))
optim_wrapper = dict(
    accumulative_counts=4, optimizer=dict(lr=1.5e-4 * effective_batch / 256))
auto_scale_lr = dict(base_batch_size=effective_batch, enable=True)
