# SPDX-License-Identifier: Apache-2.0
"""The sizes of ViT that have a name, and how ViTs are evaluated unless they say otherwise."""

# The four sizes of the ViT papers. mmpretrain's own 's' is another network (768 wide, 8 blocks).
ARCHITECTURES = {
    'vit-s': dict(embed_dims=384, num_layers=12, num_heads=6, feedforward_channels=1536),
    'vit-b': dict(embed_dims=768, num_layers=12, num_heads=12, feedforward_channels=3072),
    'vit-l': dict(embed_dims=1024, num_layers=24, num_heads=16, feedforward_channels=4096),
    'vit-h': dict(embed_dims=1280, num_layers=32, num_heads=16, feedforward_channels=5120),
}


def known_heads(width: int, depth: int) -> int | None:
    """Heads of the named size that is so wide and deep; None if there is none."""
    return next((arch['num_heads'] for arch in ARCHITECTURES.values()
                 if (arch['embed_dims'], arch['num_layers']) == (width, depth)), None)


# Share of the central crop: evaluation on ImageNet resizes to 256 and crops 224.
IMAGENET_CROP_RATIO = 0.875
