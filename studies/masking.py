# Why semantic masks cost something on the drawings (docs/evidence.md): random masks, and some
# patches drawn uniformly, against the paper's; each encoder is measured on whole images and on
# images masked as in training. Here subjects are small and their background says nothing of the
# class, as in studies/paper.py; masking_filling.py and masking_class_ground.py have other images.
_base_ = './paper.py'
title = 'Semantic masks: small subjects on arbitrary background'
# An estimate: a run of paper.py, and two evaluations more.
minutes = 2

images = dict(
    tool='quickstart.py',
    arguments=['--stage', 'images', '--work-dir', '{work}', '--composition', 'textured'],
    makes='{work}/data/meta.json')
prepare = [dict(images=images)]
taught = _base_.taught
milan = _base_.milan
changes = _base_.changes
masked = ['{checkpoint}', '--data', '{work}/data', '--crop-ratio', '1', '--workers', '0',
          '--mask-ratio', '0.75']
measure = [
    *_base_.measure,
    dict(
        tool='eval_features.py',
        arguments=[*masked, '--masking', 'semantic', '--masking-teacher', _base_.teacher,
                   '--out', '{run}/eval_semantic.json'],
        reads='{run}/eval_semantic.json',
        metrics={
            'k-NN, semantic masks': 'knn.top1',
            'linear, semantic masks': 'linear.top1',
        }),
    dict(
        tool='eval_features.py',
        arguments=[*masked, '--masking', 'random', '--out', '{run}/eval_random.json'],
        reads='{run}/eval_random.json',
        metrics={
            'k-NN, random masks': 'knn.top1',
            'linear, random masks': 'linear.top1',
        }),
]
cells = dict(
    _delete_=True,
    milan=_base_.cells.milan,
    **{name: dict(title=title, group='masking', config=milan, changes=changes[name],
                  options=taught)
       for name, title in dict(
           masking_random='random', masking_uniform_25='semantic, a quarter uniform',
           masking_uniform_50='semantic, half uniform').items()},
)
