# How much of the loss should be on the tokens that the encoder has computed itself (CLS and visible
# patches)? Of the 65 tokens of a drawing 17 are; the percentages are their share of the loss.
_base_ = './paper.py'
title = 'Weight of the seen tokens at the quickstart\'s scale'

prepare = [dict(images=_base_.images)]
milan = _base_.milan
taught = _base_.taught
random_masks = _base_.changes['masking_random']
weight, predicted = 'model.head.seen_weight', 'model.mask_generator.predicted'
cells = dict(
    _delete_=True,
    milan=_base_.cells.milan,
    **{name: dict(title=title, group=group, config=milan, options=taught, changes=changes)
       for name, title, group, changes in (
           ('seen_2', 'seen tokens count twice (41 %)', 'weight', {weight: 2}),
           ('seen_4', 'four times (59 %)', 'weight', {weight: 4}),
           ('predicted_50', 'half of the masked patches predicted (41 %)', 'predicted',
            {predicted: .5}),
           ('predicted_25', 'a quarter (59 %)', 'predicted', {predicted: .25}),
           ('predicted_50_seen_half', 'half predicted, seen tokens count half (26 %)', 'control',
            {predicted: .5, weight: .5}),
           ('masking_random', 'random masks (26 %)', 'masking', random_masks),
           ('predicted_50_random', 'random masks, half predicted (41 %)', 'masking',
            {**random_masks, predicted: .5}),
       )},
)
