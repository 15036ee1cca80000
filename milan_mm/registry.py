# SPDX-License-Identifier: Apache-2.0
"""Child registries of mmengine's roots, scope ``milan_mm``.

A scope of its own, because mmpretrain registers other classes under the names ``MILAN`` and
``CLIPGenerator``. From any config of the OpenMMLab family::

    custom_imports = dict(imports=['milan_mm'], allow_failed_imports=False)
    model = dict(type='milan_mm.MILAN', ...)
"""
from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import WEIGHT_INITIALIZERS as MMENGINE_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

_SCOPE = 'milan_mm'

MODELS = Registry(
    'model', parent=MMENGINE_MODELS, scope=_SCOPE, locations=['milan_mm.models'])
DATASETS = Registry(
    'dataset', parent=MMENGINE_DATASETS, scope=_SCOPE, locations=['milan_mm.datasets'])
TRANSFORMS = Registry(
    'transform', parent=MMENGINE_TRANSFORMS, scope=_SCOPE, locations=['milan_mm.datasets'])
DATA_SAMPLERS = Registry(
    'data sampler', parent=MMENGINE_DATA_SAMPLERS, scope=_SCOPE, locations=['milan_mm.datasets'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope=_SCOPE, locations=['milan_mm.engine'])
LOOPS = Registry('loop', parent=MMENGINE_LOOPS, scope=_SCOPE, locations=['milan_mm.engine'])
WEIGHT_INITIALIZERS = Registry(
    'weight initializer', parent=MMENGINE_WEIGHT_INITIALIZERS, scope=_SCOPE,
    locations=['milan_mm.models.pretrained'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor', parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS, scope=_SCOPE,
    locations=['milan_mm.engine.layer_decay'])
OPTIM_WRAPPERS = Registry(
    'optimizer wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope=_SCOPE,
    locations=['milan_mm.engine.precision'])
