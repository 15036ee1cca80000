# studies/masking.py with subjects that fill the image: there is hardly any background to miss.
_base_ = './masking.py'
title = 'Semantic masks: subjects that fill the image'

images = dict(
    arguments=['--stage', 'images', '--work-dir', '{work}', '--composition', 'filling'],
    makes='{work}/data/meta.json')
prepare = [dict(images=dict(images, tool='quickstart.py'))]
