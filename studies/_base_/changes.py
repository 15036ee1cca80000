# What cells change in MILAN's config, at either scale, by their name. What a cell does not name
# stays MILAN's.
mae_decoder = {'model.neck.type': 'milan_mm.MAEDecoder'}
random_masks = {'model.mask_generator.type': 'milan_mm.RandomMaskGenerator'}
changes = dict(
    # The target alone: CLIP's features with MAE's decoder and random masking.
    target_alone={**mae_decoder, **random_masks},
    # MAE's decoder: every token attends to every token and all of them change.
    decoder_mae=mae_decoder,
    # Every patch is equally likely to be seen, as in MAE.
    masking_random=random_masks,
    # In the manner of BEiT.
    masking_blockwise={'model.mask_generator.type': 'milan_mm.BlockwiseMaskGenerator'},
    # The control of semantic masking: unimportant patches are likelier to be seen.
    masking_least_important={'model.mask_generator.type': 'milan_mm.LeastImportantMaskGenerator'},
    # Drawn in proportion to importance ** (1 / temperature).
    masking_temperature_half={'model.mask_generator.temperature': 0.5},
    masking_temperature_2={'model.mask_generator.temperature': 2},
    # Some of the visible patches drawn with equal chances, among the important ones.
    masking_uniform_25={'model.mask_generator.uniform_share': .25},
    masking_uniform_50={'model.mask_generator.uniform_share': .5},
    # Of the patches, instead of 75 %.
    masking_ratio_40={'model.mask_generator.mask_ratio': .4},
    masking_ratio_60={'model.mask_generator.mask_ratio': .6},
    masking_ratio_90={'model.mask_generator.mask_ratio': .9},
    # The loss on masked patches alone instead of on all tokens.
    loss_masked={'model.head.tokens': 'masked'},
)
