# studies/masking.py with backgrounds that belong to the class: each class has textures of its own,
# in training and held-out images alike, so that the background is no noise where it is seen.
_base_ = './masking.py'
title = 'Semantic masks: background that belongs to the class'

images = dict(
    arguments=['--stage', 'images', '--work-dir', '{work}', '--composition', 'class-ground'],
    makes='{work}/data/meta.json')
prepare = [dict(images=dict(images, tool='quickstart.py'))]
